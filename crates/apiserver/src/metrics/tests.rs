//! The text of metrics.

use super::*;

#[test]
fn series_are_rendered_with_codes_and_buckets() {
    let metrics = Arc::new(Metrics::default());
    let rows = registry::Rows::builtin();
    let observed = Observed {
        row: rows.get("apps", "v1", "deployments"),
        subresource: "status",
        verb: "get",
        scope: "resource",
        dry_run: false,
    };
    metrics.record(&observed, 200, Instant::now(), true);
    metrics.record(&observed, 404, Instant::now(), true);
    metrics.record(
        &Observed { subresource: "/etc/passwd", ..observed },
        404,
        Instant::now(),
        false,
    );
    let stream = metrics.stream(&observed);
    stream.event();
    let written = store::Written { commits: 7, transactions: 3 };
    let text = metrics.render(written, Duration::from_secs(1));
    let labels = "component=\"apiserver\",dry_run=\"\",group=\"apps\",resource=\"deployments\",scope=\"resource\",subresource=\"status\",verb=\"GET\",version=\"v1\"";
    assert!(
        text.contains(&format!("apiserver_request_total{{code=\"404\",{labels}}} 1\n")),
        "{text}"
    );
    assert!(text.contains(&format!("apiserver_request_duration_seconds_count{{{labels}}} 2\n")));
    assert!(text.contains(&format!("apiserver_longrunning_requests{{{labels}}} 1\n")));
    let watched = "group=\"apps\",resource=\"deployments\",version=\"v1\"";
    assert!(text.contains(&format!("apiserver_watch_events_total{{{watched}}} 1\n")));
    assert!(text.contains("skiff_store_commits_total 7\n"));
    assert!(!text.contains("passwd") && text.contains("process_resident_memory_bytes"));
    drop(stream);
    let text = metrics.render(written, Duration::ZERO);
    assert!(text.contains(&format!("apiserver_longrunning_requests{{{labels}}} 0\n")));
}
