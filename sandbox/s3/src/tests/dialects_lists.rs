//! Dialects of listings.

use std::collections::BTreeMap;

use crate::Dialect;
use crate::testing::{Client, start};

async fn with_keys(keys: &[&str]) -> Client {
    let client = start(|_| {}).await;
    for key in keys {
        client.server.put("lhsm-sandbox", key, &b"body"[..], BTreeMap::new());
    }
    client
}

/// The keys and common prefixes of the pages, as many of them as are asked for at most.
async fn pages(client: &Client, query: &str, most: usize) -> Vec<Vec<String>> {
    let mut pages = Vec::new();
    let mut continued = String::new();
    while pages.len() < most {
        let target = format!("/lhsm-sandbox?{continued}{query}");
        let reply = client.get(&target).await.assert_ok();
        let mut page = reply.all("Key");
        let prefixes = reply.all("CommonPrefixes");
        page.extend(
            prefixes
                .iter()
                .map(|it| it.replace("<Prefix>", "").replace("</Prefix>", "")),
        );
        pages.push(page);
        let token = reply.element("NextContinuationToken");
        if token.is_empty() {
            break;
        }
        continued = format!("continuation-token={token}&");
    }
    pages
}

#[tokio::test]
async fn keys_come_in_another_order_and_none_is_lost() {
    let names: Vec<String> = (0..60).map(|number| format!("t/{number:02}")).collect();
    let client = with_keys(&names.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let query = "list-type=2&max-keys=7&prefix=t%2F";
    for dialect in [Dialect::ListShuffled, Dialect::DirectoryBucket] {
        client.server.dialects().set(&[dialect]);
        let mut listed = pages(&client, query, 100).await.concat();
        assert_ne!(listed, names);
        assert_eq!(listed, pages(&client, query, 100).await.concat(), "the same each time");
        listed.sort();
        assert_eq!(listed, names);
    }
    client.server.dialects().clear();
    assert_eq!(pages(&client, query, 100).await.concat(), names);
}

#[tokio::test]
async fn start_after_is_by_bytes_in_any_order_refused_or_ignored() {
    let client = with_keys(&["a", "b", "c", "d", "e"]).await;
    let query = "list-type=2&max-keys=2&start-after=c";
    client.server.dialects().set(&[Dialect::ListShuffled]);
    let mut listed = pages(&client, query, 100).await.concat();
    listed.sort();
    assert_eq!(listed, ["d", "e"]);
    client.server.dialects().set(&[Dialect::DirectoryBucket]);
    let refused = client.get(&format!("/lhsm-sandbox?{query}")).await;
    assert_eq!(refused.outcome(), (501, "NotImplemented".to_owned()));
    client.server.dialects().set(&[Dialect::ListIgnoresStartAfter]);
    assert_eq!(pages(&client, query, 100).await.concat(), ["a", "b", "c", "d", "e"]);
    client.server.dialects().clear();
    assert_eq!(pages(&client, query, 100).await.concat(), ["d", "e"]);
}

#[tokio::test]
async fn directories_come_before_what_bytes_would_put_first() {
    let client = with_keys(&["obj", "obj+", "obj/1", "obj/2"]).await;
    client.server.dialects().set(&[Dialect::ListDirectoryOrder]);
    let query = "list-type=2&max-keys=1";
    let listed = pages(&client, query, 100).await.concat();
    assert_eq!(listed, ["obj", "obj/1", "obj/2", "obj+"]);
    let listed = pages(&client, "delimiter=%2F&list-type=2&max-keys=1", 100)
        .await
        .concat();
    assert_eq!(listed, ["obj", "obj/", "obj+"]);
    client.server.dialects().clear();
    assert_eq!(
        pages(&client, query, 100).await.concat(),
        ["obj", "obj+", "obj/1", "obj/2"]
    );
}

#[tokio::test]
async fn pages_that_are_empty_go_round_or_have_no_token() {
    let client = with_keys(&["a", "b", "c", "d", "e"]).await;
    let query = "list-type=2&max-keys=2";
    let right = [vec!["a", "b"], vec!["c", "d"], vec!["e"]];
    client.server.dialects().set(&[Dialect::ListEmptyPages]);
    let expected = [vec!["a", "b"], vec![], vec!["c", "d"], vec![], vec!["e"]];
    assert_eq!(pages(&client, query, 100).await, expected);
    client.server.dialects().set(&[Dialect::ListRepeatsPage]);
    let expected = [vec!["a", "b"], vec!["c", "d"], vec!["a", "b"], vec!["c", "d"]];
    assert_eq!(pages(&client, query, 4).await, expected);
    client.server.dialects().set(&[Dialect::ListIgnoresToken]);
    assert_eq!(pages(&client, query, 3).await, [["a", "b"], ["a", "b"], ["a", "b"]]);
    client.server.dialects().set(&[Dialect::ListTruncatedNoToken]);
    let page = client.get(&format!("/lhsm-sandbox?{query}")).await.assert_ok();
    assert_eq!(page.element("IsTruncated"), "true");
    assert_eq!(page.element("NextContinuationToken"), "");
    client.server.dialects().clear();
    assert_eq!(pages(&client, query, 100).await, right);
}

#[tokio::test]
async fn prefix_and_delimiter_are_not_heeded() {
    let client = with_keys(&["a/1", "b/1", "b/2", "c/1"]).await;
    let query = "list-type=2&prefix=b%2F";
    client.server.dialects().set(&[Dialect::ListBehindPrefix]);
    assert_eq!(pages(&client, query, 100).await, [["b/1", "b/2", "c/1"]]);
    client.server.dialects().set(&[Dialect::ListNoDelimiter]);
    let delimited = "delimiter=%2F&list-type=2";
    assert_eq!(pages(&client, delimited, 100).await, [["a/1", "b/1", "b/2", "c/1"]]);
    client.server.dialects().clear();
    assert_eq!(pages(&client, query, 100).await, [["b/1", "b/2"]]);
    assert_eq!(pages(&client, delimited, 100).await, [["a/", "b/", "c/"]]);
}

#[tokio::test]
async fn dialects_go_together_with_each_other_and_with_faults() {
    let client = with_keys(&["a", "b", "c", "d", "e"]).await;
    client
        .server
        .dialects()
        .set(&[Dialect::ListShuffled, Dialect::ListEmptyPages]);
    let found = pages(&client, "list-type=2&max-keys=2", 100).await;
    assert_eq!(found.iter().filter(|page| page.is_empty()).count(), 2);
    let mut listed = found.concat();
    listed.sort();
    assert_eq!(listed, ["a", "b", "c", "d", "e"]);
    client.server.faults().fail("ListObjectsV2", 503, "SlowDown", 1);
    let refused = client.get("/lhsm-sandbox?list-type=2").await;
    assert_eq!(refused.outcome(), (503, "SlowDown".to_owned()));
}
