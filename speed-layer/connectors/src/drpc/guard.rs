//! Keeps web pages out: a page of another origin, one whose name was made to point at this machine, and what a page may
//! send elsewhere without asking first.
//!
//! Stratus's own HTTP listener decides alike (`stratus/src/http/guard.rs`), and knows its port. This router does not
//! know where it will be bound, so it goes by what the request says: the Host must be this machine's or one that was
//! named, and an Origin must be that same place. Nothing that both could depend on speaks HTTP, and a crate for these
//! few lines would be no thing of the domain.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::Response;

use super::problem;

/// What calls may call themselves. A web page can send neither to another origin without a preflight, which the router
/// does not answer.
const CONTENT_TYPES: [&str; 2] = ["application/octet-stream", "application/json"];

/// The places, as `host` or `host:port`, that the router is asked for by, beside the loopback.
pub(super) type Places = Arc<[String]>;

/// Lets a request pass only if it comes from a program, or from a page of the place that it asks.
pub(super) async fn refuse_foreign(State(places): State<Places>, request: Request, next: Next) -> Response {
    let (headers, uri) = (request.headers(), request.uri());
    match check_place(headers, uri, &places).and_then(|()| check_type(headers)) {
        Ok(()) => next.run(request).await,
        Err((status, why)) => problem(status, &why),
    }
}

type Refused = (StatusCode, String);

fn check_place(headers: &HeaderMap, uri: &Uri, places: &[String]) -> Result<(), Refused> {
    let refused = |why: String| Err((StatusCode::FORBIDDEN, why));
    let mut hosts = headers.get_all(header::HOST).iter();
    let host = match (hosts.next(), hosts.next()) {
        (Some(host), None) => host.to_str().unwrap_or_default(),
        // HTTP/2 has the place in the URI.
        (None, _) => uri.authority().map_or("", |authority| authority.as_str()),
        (Some(_), Some(_)) => return refused("the request has several Host headers".to_owned()),
    };
    if !is_loopback(host) && !places.iter().any(|place| place.eq_ignore_ascii_case(host)) {
        return refused(format!(
            "the Host {host:?} is not known here: ask for 127.0.0.1 or localhost, or let the router know it"
        ));
    }
    for origin in headers.get_all(header::ORIGIN) {
        let origin = origin.to_str().unwrap_or_default();
        let page = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
        let known = |page: &str| {
            let places = places.iter().map(String::as_str);
            places.chain([host]).any(|place| place.eq_ignore_ascii_case(page))
        };
        if !page.is_some_and(known) {
            return refused(format!(
                "the Origin {origin:?} may not call: call from a program, not a web page"
            ));
        }
    }
    Ok(())
}

fn check_type(headers: &HeaderMap) -> Result<(), Refused> {
    let given = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = given.split(';').next().unwrap_or_default().trim();
    if CONTENT_TYPES.iter().any(|known| known.eq_ignore_ascii_case(essence)) {
        return Ok(());
    }
    let why = format!("the Content-Type is {essence:?}: send the arguments as {}", CONTENT_TYPES[0]);
    Err((StatusCode::UNSUPPORTED_MEDIA_TYPE, why))
}

/// Whether `host` or `host:port` names this machine for itself.
fn is_loopback(authority: &str) -> bool {
    let host = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => match port.parse::<u16>() {
            Ok(_) => host,
            Err(_) => return false,
        },
        _ => authority,
    };
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    host.eq_ignore_ascii_case("localhost") || host.parse().is_ok_and(|address: IpAddr| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(host: &str, origin: Option<&str>, places: &[&str]) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, host.parse().unwrap());
        if let Some(origin) = origin {
            headers.insert(header::ORIGIN, origin.parse().unwrap());
        }
        let places: Vec<String> = places.iter().map(ToString::to_string).collect();
        check_place(&headers, &Uri::from_static("/v1/drpc/words"), &places).is_ok()
    }

    #[test]
    fn only_the_loopback_and_named_places_are_our_own() {
        for own in ["127.0.0.1:8090", "localhost:8090", "LocalHost", "[::1]:8090", "127.0.0.2", "[::1]"] {
            assert!(check(own, None, &[]), "{own}");
        }
        let foreign = [
            "",
            "evil.example:8090",
            "evil.example",
            "localhost.evil.example:8090",
            "127.0.0.1.evil.example",
            "192.168.0.1:8090",
            "[::2]:8090",
            "localhost:8090:8090",
            "localhost:",
            "user@localhost:8090",
        ];
        for foreign in foreign {
            assert!(!check(foreign, None, &["stats.example"]), "{foreign}");
        }
        assert!(check("Stats.example", None, &["stats.example"]));
        assert!(!check("stats.example:8090", None, &["stats.example"]), "a place has its port");
    }

    #[test]
    fn a_page_may_call_only_the_place_that_it_came_from() {
        assert!(check("localhost:8090", Some("http://localhost:8090"), &[]));
        for foreign in
            ["http://localhost:3000", "http://evil.example", "null", "", "localhost:8090", "http://"]
        {
            assert!(!check("localhost:8090", Some(foreign), &[]), "{foreign}");
        }
        // Behind a proxy, which asks the loopback for a page of its own.
        assert!(check("127.0.0.1:8090", Some("https://stats.example"), &["stats.example"]));
        assert!(!check("stats.example", Some("https://evil.example"), &["stats.example"]));
    }

    #[test]
    fn the_place_is_needed_once() {
        let mut headers = HeaderMap::new();
        let (bare, whole) = (Uri::from_static("/f"), Uri::from_static("https://localhost:8090/f"));
        assert!(check_place(&headers, &bare, &[]).is_err());
        assert!(check_place(&headers, &whole, &[]).is_ok());
        headers.append(header::HOST, "localhost:8090".parse().unwrap());
        assert!(check_place(&headers, &bare, &[]).is_ok());
        headers.append(header::HOST, "evil.example".parse().unwrap());
        assert!(check_place(&headers, &bare, &[]).is_err());
    }

    #[test]
    fn what_a_page_may_send_without_asking_first_is_refused() {
        let check = |given: Option<&str>| {
            let mut headers = HeaderMap::new();
            if let Some(given) = given {
                headers.insert(header::CONTENT_TYPE, given.parse().unwrap());
            }
            check_type(&headers).is_ok()
        };
        assert!(check(Some("application/octet-stream")));
        assert!(check(Some("Application/JSON; charset=utf-8")));
        for simple in ["text/plain", "text/plain;application/json", "application/x-www-form-urlencoded", ""] {
            assert!(!check(Some(simple)), "{simple}");
        }
        assert!(!check(Some("multipart/form-data; boundary=x")));
        assert!(!check(None), "a page may leave it out");
    }
}
