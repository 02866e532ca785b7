//! The text of metrics.

use super::*;

#[tokio::test]
async fn series_are_rendered_with_codes_and_buckets() {
    let metrics = Arc::new(Metrics::default());
    let rows = registry::Rows::builtin();
    let observed = Observed {
        row: rows.get("apps", "v1", "deployments"),
        subresource: "status",
        verb: "GET",
        scope: "resource",
        dry_run: false,
    };
    let answer = |observed: &Observed<'_>, code: u16, body: Body, took: u64, terminated: bool| {
        let (took, waited) = (Duration::from_millis(took), Duration::from_millis(100));
        let went = Went { took, waited, timed: took > Duration::ZERO, terminated };
        let mut response = Response::new(body);
        *response.status_mut() = http::StatusCode::from_u16(code).expect("a code");
        metrics.answered(observed, &went, response)
    };
    answer(&observed, 200, Body::full("x".repeat(5000)), 150, false);
    let streamed = futures::stream::iter([Ok::<_, std::io::Error>("y".repeat(20_000).into())]);
    let streamed = answer(&observed, 404, Body::stream(streamed), 130, false);
    streamed.into_body().read(1 << 20).await.expect("sent");
    answer(&observed, 504, Body::empty(), 61_000, true);
    answer(&Observed { subresource: "/etc/passwd", ..observed }, 404, Body::empty(), 0, false);
    let stream = metrics.stream(&observed);
    stream.event();
    let written = store::Written { commits: 7, transactions: 3 };
    let text = metrics.render(written, Duration::from_secs(1));
    let labels = "component=\"apiserver\",group=\"apps\",resource=\"deployments\",scope=\"resource\",subresource=\"status\",verb=\"GET\",version=\"v1\"";
    let full = format!("dry_run=\"\",{labels}");
    for series in [
        format!("request_total{{code=\"404\",{full}}} 1\n"),
        format!("request_terminations_total{{code=\"504\",{labels}}} 1\n"),
        format!("request_duration_seconds_bucket{{{full},le=\"0.1\"}} 0\n"),
        format!("request_duration_seconds_count{{{full}}} 3\n"),
        format!("request_sli_duration_seconds_bucket{{{labels},le=\"0.05\"}} 2\n"),
        format!("response_sizes_bucket{{{labels},le=\"1000\"}} 1\n"),
        format!("response_sizes_bucket{{{labels},le=\"10000\"}} 2\n"),
        format!("response_sizes_sum{{{labels}}} 25000\n"),
    ] {
        assert!(text.contains(&format!("apiserver_{series}")), "{series}: {text}");
    }
    assert!(!text.contains("code=\"404\",component"), "only what was given up is a termination");
    assert!(text.contains(&format!("apiserver_longrunning_requests{{{labels}}} 1\n")));
    let watched = "group=\"apps\",resource=\"deployments\",version=\"v1\"";
    assert!(text.contains(&format!("apiserver_watch_events_total{{{watched}}} 1\n")));
    assert!(text.contains("skiff_store_commits_total 7\n"));
    assert!(!text.contains("passwd") && text.contains("process_resident_memory_bytes"));
    drop(stream);
    let text = metrics.render(written, Duration::ZERO);
    assert!(text.contains(&format!("apiserver_longrunning_requests{{{labels}}} 0\n")));
}
