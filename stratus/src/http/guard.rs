//! Keeps web pages out: a page of another origin, and one whose name was made to point at this machine.

use std::net::IpAddr;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::Problem;

/// Lets a request pass only if its Host is this machine's own and its Origin, if it has one, is this listener's.
pub(super) async fn refuse_foreign(State(port): State<u16>, request: Request, next: Next) -> Response {
    match check(request.headers(), port) {
        Ok(()) => next.run(request).await,
        Err(problem) => problem.into_response(),
    }
}

fn check(headers: &HeaderMap, port: u16) -> Result<(), Problem> {
    let refused = |detail: String| Problem::new(StatusCode::FORBIDDEN, detail);
    let mut hosts = headers.get_all(header::HOST).iter();
    let (Some(host), None) = (hosts.next(), hosts.next()) else {
        return Err(refused("the request needs exactly one Host header".to_owned()));
    };
    if !host.to_str().is_ok_and(|host| is_own(host, port)) {
        return Err(refused(format!("the Host {host:?} is not this listener's"))
            .what_to_do(format!("ask for 127.0.0.1:{port} or localhost:{port}")));
    }
    for origin in headers.get_all(header::ORIGIN) {
        let authority = origin.to_str().ok().and_then(|origin| origin.strip_prefix("http://"));
        if !authority.is_some_and(|authority| is_own(authority, port)) {
            return Err(refused(format!("the Origin {origin:?} may not use this listener"))
                .what_to_do("call it from a program, not from a web page of another origin"));
        }
    }
    Ok(())
}

/// Whether `host:port` names this listener. A name without a port can only be meant for a browser's default one,
/// or come from a client that left it out: `localhost` alone is let through.
fn is_own(authority: &str, port: u16) -> bool {
    if authority.eq_ignore_ascii_case("localhost") {
        return true;
    }
    let (host, named) = match authority.rsplit_once(':') {
        Some((host, named)) if !named.ends_with(']') => (host, named.parse().ok()),
        _ => (authority, Some(80)),
    };
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let loopback = host.eq_ignore_ascii_case("localhost")
        || host.parse().is_ok_and(|address: IpAddr| address.is_loopback());
    loopback && named == Some(port)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_listener_is_our_own() {
        for own in [
            "127.0.0.1:8080",
            "localhost:8080",
            "LocalHost:8080",
            "[::1]:8080",
            "127.0.0.2:8080",
            "localhost",
        ] {
            assert!(is_own(own, 8080), "{own}");
        }
        for foreign in [
            "",
            "evil.example:8080",
            "evil.example",
            "localhost.evil.example:8080",
            "127.0.0.1.evil.example:8080",
            "127.0.0.1",
            "127.0.0.1:8081",
            "localhost:3000",
            "192.168.0.1:8080",
            "[::2]:8080",
            "localhost:8080:8080",
            "user@localhost:8080",
        ] {
            assert!(!is_own(foreign, 8080), "{foreign}");
        }
        assert!(is_own("127.0.0.1", 80));
        assert!(is_own("[::1]", 80));
    }
}
