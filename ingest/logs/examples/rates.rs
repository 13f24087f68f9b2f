//! How fast one core reads and decodes the Yahoo streaming benchmark's events: all seven columns, and the three
//! that its query needs. Run with `cargo run --release -p stratus-logs --example rates`.

use std::time::{Duration, Instant};

use bytes::{BufMut, BytesMut};
use stratus_logs::{CodecOptions, DirectoryLog, JsonCodec, READ_BYTES};
use stratus_seam::log::{Chunk, Log, LogId, RecordSpan};
use stratus_seam::schema::{Column, ColumnType};

fn event(number: u64) -> String {
    let id = |salt: u64| {
        uuid::Uuid::from_u64_pair(number.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ salt, number ^ salt)
    };
    let kind = ["view", "click", "purchase"][(number % 3) as usize];
    let (user, page, ad, time) = (id(1), id(2), id(number % 1000), 1_480_000_000_000 + number);
    format!(
        r#"{{"user_id":"{user}","page_id":"{page}","ad_id":"{ad}","ad_type":"banner","event_type":"{kind}","event_time":"{time}","ip_address":"1.2.3.4"}}"#
    )
}

fn chunk() -> Chunk {
    let mut bytes = BytesMut::new();
    let mut records = Vec::new();
    let mut number = 0;
    while bytes.len() < READ_BYTES {
        let start = bytes.len() as u32;
        bytes.put_slice(event(number).as_bytes());
        records.push(RecordSpan { offset: start.into(), start, end: bytes.len() as u32, timestamp: None });
        bytes.put_u8(b'\n');
        number += 1;
    }
    Chunk { partition: 0, from: 0, to: bytes.len() as u64, bytes: bytes.freeze(), records }
}

/// Reads 512 MiB of the chunk's lines, again and again, without decoding them.
async fn read(chunk: &Chunk) -> Result<(), Box<dyn std::error::Error>> {
    let dir = tempfile::tempdir()?;
    let log = DirectoryLog::create(dir.path(), 1)?;
    std::fs::write(dir.path().join("0.jsonl"), chunk.bytes.repeat(256))?;
    for round in 0..3 {
        let (began, mut from, mut records) = (Instant::now(), 0, 0);
        loop {
            let chunk = log.read(0, from, None, READ_BYTES).await?;
            if chunk.records.is_empty() {
                break;
            }
            (from, records) = (chunk.to, records + chunk.records.len());
        }
        let seconds = began.elapsed().as_secs_f64();
        println!(
            "read, round {round}: {:.2} GB/s, {:.1} M records/s",
            from as f64 / seconds / 1e9,
            records as f64 / seconds / 1e6
        );
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let texts = ["user_id", "page_id", "ad_id", "ad_type", "event_type"];
    let mut columns: Vec<Column> = texts.iter().map(|name| Column::new(*name, ColumnType::Text)).collect();
    columns.push(Column::new("event_time", ColumnType::TimestampTz));
    columns.push(Column::new("ip_address", ColumnType::Text));
    let chunk = chunk();
    let log = LogId("log".to_owned());
    let all = JsonCodec::new(&columns, CodecOptions::default())?;
    let three = JsonCodec::new(&columns, CodecOptions::default())?.with_projection(&[
        "ad_id",
        "event_type",
        "event_time",
    ])?;
    for (name, mut codec) in [("all columns", all), ("3 of 7 columns", three)] {
        let (began, mut rows) = (Instant::now(), 0);
        while began.elapsed() < Duration::from_secs(2) {
            let decoded = codec.decode(&log, &chunk)?;
            assert!(decoded.bad.is_empty());
            rows += decoded.events.num_rows();
        }
        let seconds = began.elapsed().as_secs_f64();
        let size = chunk.bytes.len() / chunk.records.len();
        println!("{name}: {:.2} M events/s of {size} bytes", rows as f64 / seconds / 1e6);
    }
    tokio::runtime::Runtime::new()?.block_on(read(&chunk))
}
