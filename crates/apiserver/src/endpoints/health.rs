//! `/livez`, `/readyz` and `/healthz`: named checks, each also at a path of its own.
//!
//! Refuses to know what a check means; it is told outcomes.

use http::{Response, StatusCode};
use serve::Body;

use super::respond;
use crate::request::Query;

/// One check and how it went.
pub(crate) struct Check {
    /// Its name in paths and listings.
    pub(crate) name: &'static str,
    /// What is wrong, if anything is.
    pub(crate) outcome: Result<(), String>,
}

/// Answers `path`, which starts with `endpoint` (`/readyz`), from the outcomes of `checks`.
pub(crate) fn answer(
    endpoint: &str,
    path: &str,
    query: &Query,
    checks: &[Check],
) -> Response<Body> {
    let name = endpoint.trim_start_matches('/');
    let single = path[endpoint.len()..].trim_matches('/');
    if !single.is_empty() {
        return match checks.iter().find(|check| check.name == single) {
            None => respond::text(StatusCode::NOT_FOUND, "404 page not found\n"),
            Some(Check { outcome: Ok(()), .. }) => respond::text(StatusCode::OK, "ok"),
            Some(Check { outcome: Err(reason), .. }) => respond::text(
                StatusCode::INTERNAL_SERVER_ERROR,
                format!("internal server error: {reason}\n"),
            ),
        };
    }
    let excluded: Vec<&str> = query.all("exclude").flat_map(|names| names.split(',')).collect();
    let (mut listing, mut failed) = (String::new(), Vec::new());
    for check in checks {
        let line = match &check.outcome {
            _ if excluded.contains(&check.name) => format!("[+]{} excluded: ok\n", check.name),
            Ok(()) => format!("[+]{} ok\n", check.name),
            Err(_) => {
                failed.push(check.name);
                // The reason may hold what strangers should not read; it is in the log.
                format!("[-]{} failed: reason withheld\n", check.name)
            }
        };
        listing.push_str(&line);
    }
    let unknown: Vec<&str> = excluded
        .into_iter()
        .filter(|excluded| {
            !excluded.is_empty() && !checks.iter().any(|check| check.name == *excluded)
        })
        .collect();
    if !unknown.is_empty() {
        listing.push_str(&format!(
            "warn: some health checks cannot be excluded: no matches for {:?}\n",
            unknown.join(",")
        ));
    }
    if !failed.is_empty() {
        listing.push_str(&format!("{name} check failed\n"));
        return respond::text(StatusCode::INTERNAL_SERVER_ERROR, listing);
    }
    if query.get("verbose").is_none() {
        return respond::text(StatusCode::OK, "ok");
    }
    listing.push_str(&format!("{name} check passed\n"));
    respond::text(StatusCode::OK, listing)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn check(path: &str, query: &str, code: u16, text: &str) {
        let checks = [
            Check { name: "ping", outcome: Ok(()) },
            Check { name: "store", outcome: Err("disk gone".into()) },
        ];
        let response = answer("/readyz", path, &Query::parse(query), &checks);
        assert_eq!(response.status().as_u16(), code, "{path}?{query}");
        let body = response.into_body().read(10_000).await.expect("body");
        assert_eq!(body, text, "{path}?{query}");
    }

    #[tokio::test]
    async fn checks_are_listed_excluded_and_asked_alone() {
        check(
            "/readyz",
            "",
            500,
            "[+]ping ok\n[-]store failed: reason withheld\nreadyz check failed\n",
        )
        .await;
        check("/readyz", "exclude=store", 200, "ok").await;
        check(
            "/readyz",
            "verbose&exclude=store",
            200,
            "[+]ping ok\n[+]store excluded: ok\nreadyz check passed\n",
        )
        .await;
        check("/readyz/ping", "", 200, "ok").await;
        check("/readyz/store", "", 500, "internal server error: disk gone\n").await;
        check("/readyz/none", "", 404, "404 page not found\n").await;
    }
}
