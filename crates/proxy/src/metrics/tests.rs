use super::*;

fn labels<'a>(code: u16, consumer: &'a str) -> Labels<'a> {
    Labels {
        code,
        route: "r1",
        service: "",
        matched_uri: "/a\"b",
        matched_host: "",
        consumer,
        node: "127.0.0.1",
        source: "upstream",
        hidden: Hidden::default(),
    }
}

const SAMPLE: Sample = Sample {
    request: Duration::from_millis(3),
    upstream: Some(Duration::from_millis(2)),
    ingress: 10,
    egress: 100,
};

#[test]
fn workers_are_added_up_and_a_new_handle_finds_the_old_counters() {
    let metrics = Metrics::default();
    let (first, second) = (RouteMetrics::default(), RouteMetrics::default());
    first.count(&metrics, 0, &labels(200, ""), &SAMPLE);
    first.count(&metrics, 1, &labels(200, ""), &SAMPLE);
    second.count(&metrics, 0, &labels(200, ""), &SAMPLE);
    second.count(&metrics, 0, &labels(404, ""), &SAMPLE);
    let page = metrics.render("apisix_");
    assert!(
        page.contains(
            "apisix_http_status{code=\"200\",route=\"r1\",matched_uri=\"/a\\\"b\",matched_host=\"\","
        ),
        "{page}"
    );
    let status: Vec<&str> = page.lines().filter(|line| line.starts_with("apisix_http_status{")).collect();
    assert_eq!(status.len(), 2);
    assert!(status[0].ends_with(" 3") && status[1].ends_with(" 1"), "{page}");
    let has = |start: &str, end: &str| page.lines().any(|l| l.starts_with(start) && l.ends_with(end));
    assert!(has("apisix_bandwidth{type=\"egress\"", " 400"), "{page}");
    assert!(has("apisix_http_latency_bucket{type=\"upstream\"", "le=\"1\"} 0"), "{page}");
    assert!(has("apisix_http_latency_bucket{type=\"upstream\"", "le=\"2\"} 4"), "{page}");
    assert!(has("apisix_http_latency_sum{type=\"apisix\"", " 4"), "{page}");
}

#[test]
fn many_consumers_each_have_their_own_series() {
    let metrics = Metrics::default();
    let route = RouteMetrics::default();
    let names: Vec<String> = (0..500).map(|n| format!("c{n}")).collect();
    for round in 0..3 {
        for name in &names[round..] {
            route.count(&metrics, 0, &labels(200, name), &SAMPLE);
        }
    }
    let page = metrics.render("");
    let count = |name: &str| {
        let mark = format!("consumer=\"{name}\"");
        page.lines()
            .find(|l| l.starts_with("http_status{") && l.contains(&mark))
            .and_then(|l| l.rsplit(' ').next())
            .map(str::to_owned)
    };
    assert_eq!(count("c0").as_deref(), Some("1"));
    assert_eq!(count("c1").as_deref(), Some("2"));
    assert_eq!(count("c499").as_deref(), Some("3"));
}

#[test]
fn hidden_labels_are_added_up() {
    let metrics = Metrics::default();
    let route = RouteMetrics::default();
    let hidden =
        Hidden::read(&serde_json::json!({"http_status": ["consumer"], "bandwidth": ["node", "llm_model"]}));
    for consumer in ["jack", "rose"] {
        route.count(&metrics, 0, &Labels { hidden, ..labels(200, consumer) }, &SAMPLE);
    }
    let page = metrics.render("");
    let lines = |family: &str| page.lines().filter(|line| line.starts_with(family)).collect::<Vec<_>>();
    let [status] = lines("http_status{")[..] else { panic!("{page}") };
    assert!(status.contains("consumer=\"\",node=\"127.0.0.1\"") && status.ends_with(" 2"), "{status}");
    let bandwidth = lines("bandwidth{");
    assert_eq!(bandwidth.len(), 4, "{page}");
    assert!(bandwidth.iter().all(|line| line.contains("node=\"\",request_type")), "{page}");
    assert_eq!(lines("http_latency_count{").len(), 6);
}
