CREATE TABLE IF NOT EXISTS ad_events (user_id TEXT, ad_id TEXT, event_type TEXT, event_time TIMESTAMPTZ)
  WITH (connector = 'kafka', topic = 'ad-events');
CREATE MATERIALIZED VIEW IF NOT EXISTS ad_views WITH (refresh = '0 * * * *') AS
  SELECT ad_id, date_bin(INTERVAL '10 seconds', event_time) AS window_start, count(*) AS views,
         approx_distinct(user_id) AS viewers
  FROM ad_events WHERE event_type = 'view' GROUP BY 1, 2;
