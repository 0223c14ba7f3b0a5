//! Multipart uploads.

use crate::checksum::Kind;
use crate::testing::{Body, Client, Reply, checksum, start};

const KEY: &str = "/lhsm-sandbox/large";
const MIB: usize = 1024 * 1024;

/// An upload with its parts, and what completes it.
pub(super) struct Upload {
    client: Client,
    pub(super) id: String,
    pub(super) parts: Vec<(i32, String)>,
}

impl Upload {
    pub(super) async fn create(client: &Client, headers: &[(&str, &str)]) -> Self {
        let reply = client
            .send("POST", &format!("{KEY}?uploads="), headers, Body::Plain(b""))
            .await
            .assert_ok();
        Self {
            client: client.clone(),
            id: reply.element("UploadId"),
            parts: Vec::new(),
        }
    }

    pub(super) async fn part(&mut self, number: i32, body: &[u8]) {
        let target = format!("{KEY}?partNumber={number}&uploadId={}", self.id);
        let text = checksum(Kind::Crc64Nvme, body);
        let trailer = Body::Trailer(body, Kind::Crc64Nvme, &text);
        let reply = self.client.send("PUT", &target, &[], trailer).await.assert_ok();
        assert_eq!(reply.header(Kind::Crc64Nvme.header()), text);
        self.parts.push((number, reply.header("etag").to_owned()));
    }

    pub(super) async fn complete(&self, headers: &[(&str, &str)]) -> Reply {
        let part = |(number, etag): &(i32, String)| {
            format!("<Part><PartNumber>{number}</PartNumber><ETag>{etag}</ETag></Part>")
        };
        let parts: String = self.parts.iter().map(part).collect();
        let body = format!("<CompleteMultipartUpload>{parts}</CompleteMultipartUpload>");
        let target = format!("{KEY}?uploadId={}", self.id);
        self.client
            .send("POST", &target, headers, Body::Plain(body.as_bytes()))
            .await
    }
}

fn outcome(status: u16, code: &str) -> (u16, String) {
    (status, code.to_owned())
}

#[tokio::test]
async fn a_multipart_object_with_its_checksum() {
    let client = start(|_| {}).await;
    let headers = [("x-amz-checksum-algorithm", "CRC64NVME"), ("x-amz-meta-fid", "0x3")];
    let mut upload = Upload::create(&client, &headers).await;
    let parts = [vec![1; 5 * MIB], vec![2; 6 * MIB], vec![3; 100]];
    for (number, part) in (1..).zip(&parts) {
        upload.part(number, part).await;
    }
    let whole = parts.concat();
    let right = checksum(Kind::Crc64Nvme, &whole);
    let wrong = checksum(Kind::Crc64Nvme, b"");
    let header = Kind::Crc64Nvme.header();
    let refused = upload
        .complete(&[(header, &wrong), ("x-amz-checksum-type", "FULL_OBJECT")])
        .await;
    assert_eq!(refused.outcome(), outcome(400, "BadDigest"));
    assert_eq!(
        client.server.uploads("lhsm-sandbox"),
        [("large".to_owned(), upload.id.clone())]
    );

    let claimed = [
        (header, &right[..]),
        ("x-amz-checksum-type", "FULL_OBJECT"),
        ("if-none-match", "*"),
    ];
    let reply = upload.complete(&claimed).await.assert_ok();
    assert_eq!(reply.element("ChecksumCRC64NVME"), right);
    assert_eq!(reply.element("ChecksumType"), "FULL_OBJECT");
    assert!(reply.element("ETag").ends_with("-3\""));
    assert!(client.server.uploads("lhsm-sandbox").is_empty());
    assert_eq!(upload.complete(&[]).await.outcome(), outcome(404, "NoSuchUpload"));

    let reply = client
        .send("HEAD", KEY, &[("x-amz-checksum-mode", "ENABLED")], Body::Plain(b""))
        .await
        .assert_ok();
    assert_eq!(reply.header(header), right);
    assert_eq!(reply.header("x-amz-checksum-type"), "FULL_OBJECT");
    assert_eq!(reply.header("x-amz-meta-fid"), "0x3");
    assert!(client.get(KEY).await.body == whole);
    let (start, end) = (5 * MIB - 10, 11 * MIB + 10);
    let range = format!("bytes={start}-{}", end - 1);
    let reply = client.send("GET", KEY, &[("range", &range)], Body::Plain(b"")).await;
    assert!(reply.body == whole[start..end]);
}

#[tokio::test]
async fn conditions_are_checked_at_the_end() {
    let client = start(|_| {}).await;
    let mut upload = Upload::create(&client, &[]).await;
    upload.part(1, b"new").await;
    client.put(KEY, b"old").await.assert_ok();
    let condition = [("if-none-match", "*")];
    assert_eq!(
        upload.complete(&condition).await.outcome(),
        outcome(412, "PreconditionFailed")
    );
    assert_eq!(client.server.object_body("lhsm-sandbox", "large").unwrap(), b"old");
    client.delete(KEY).await.assert_ok();
    upload.complete(&condition).await.assert_ok();
    assert_eq!(client.server.object_body("lhsm-sandbox", "large").unwrap(), b"new");
}

#[tokio::test]
async fn parts_have_to_be_there_in_order_and_large_enough() {
    let client = start(|_| {}).await;
    let mut upload = Upload::create(&client, &[]).await;
    upload.part(1, b"small").await;
    upload.part(2, b"small too").await;
    assert_eq!(upload.complete(&[]).await.outcome(), outcome(400, "EntityTooSmall"));
    upload.parts.reverse();
    assert_eq!(upload.complete(&[]).await.outcome(), outcome(400, "InvalidPartOrder"));
    upload.parts = vec![(1, "\"00\"".to_owned())];
    assert_eq!(upload.complete(&[]).await.outcome(), outcome(400, "InvalidPart"));
    upload.parts = vec![(7, "\"00\"".to_owned())];
    assert_eq!(upload.complete(&[]).await.outcome(), outcome(400, "InvalidPart"));

    let target = format!("{KEY}?uploadId={}", upload.id);
    let listed = client.get(&target).await.assert_ok();
    assert_eq!(listed.all("PartNumber"), ["1", "2"]);
    assert_eq!(listed.all("Size"), ["5", "9"]);
    assert_eq!(
        client.get("/lhsm-sandbox?prefix=lar&uploads=").await.all("UploadId"),
        [upload.id.clone()]
    );
    assert_eq!(
        client.get("/lhsm-sandbox?prefix=x&uploads=").await.all("UploadId"),
        [""; 0]
    );
    client.delete(&target).await.assert_ok();
    assert_eq!(client.delete(&target).await.outcome(), outcome(404, "NoSuchUpload"));
    assert!(client.server.uploads("lhsm-sandbox").is_empty());
}

#[tokio::test]
async fn a_part_with_a_wrong_checksum_is_refused() {
    let client = start(|_| {}).await;
    let upload = Upload::create(&client, &[("x-amz-checksum-algorithm", "CRC64NVME")]).await;
    let target = format!("{KEY}?partNumber=1&uploadId={}", upload.id);
    let wrong = checksum(Kind::Crc64Nvme, b"other");
    let reply = client
        .send("PUT", &target, &[], Body::Trailer(b"body", Kind::Crc64Nvme, &wrong))
        .await;
    assert_eq!(reply.outcome(), outcome(400, "BadDigest"));
    let other = checksum(Kind::Crc32, b"body");
    let reply = client
        .send("PUT", &target, &[], Body::Trailer(b"body", Kind::Crc32, &other))
        .await;
    assert_eq!(reply.outcome(), outcome(400, "InvalidRequest"));
    assert_eq!(
        client
            .get(&format!("{KEY}?uploadId={}", upload.id))
            .await
            .all("PartNumber"),
        [""; 0]
    );
}

#[tokio::test]
async fn an_error_in_the_body_of_a_good_answer() {
    let client = start(|_| {}).await;
    let mut upload = Upload::create(&client, &[]).await;
    upload.part(1, b"data").await;
    let op = "CompleteMultipartUpload";
    client.server.faults().fail(op, 200, "InternalError", 1);
    let reply = upload.complete(&[]).await;
    assert_eq!(reply.outcome(), outcome(200, "InternalError"));
    assert_eq!(reply.all("Error").len(), 1);
    assert_eq!(client.server.objects("lhsm-sandbox"), []);
    upload.complete(&[]).await.assert_ok();
    assert_eq!(client.server.objects("lhsm-sandbox").len(), 1);
}

#[tokio::test]
async fn an_upload_vanishes() {
    let client = start(|_| {}).await;
    client.server.faults().lose_upload("CompleteMultipartUpload", 1);
    let mut upload = Upload::create(&client, &[]).await;
    upload.part(1, b"data").await;
    assert_eq!(upload.complete(&[]).await.outcome(), outcome(404, "NoSuchUpload"));
    assert!(client.server.uploads("lhsm-sandbox").is_empty());
    let mut upload = Upload::create(&client, &[]).await;
    upload.part(1, b"data").await;
    upload.complete(&[]).await.assert_ok();
}

#[tokio::test]
async fn a_list_repeats_its_first_page_for_ever() {
    let client = start(|_| {}).await;
    let mut upload = Upload::create(&client, &[]).await;
    upload.part(1, b"data").await;
    for op in ["ListParts", "ListMultipartUploads"] {
        client.server.faults().repeat(op);
    }
    let id = &upload.id;
    for query in [format!("uploadId={id}"), format!("part-number-marker=1&uploadId={id}")] {
        let page = client.get(&format!("{KEY}?{query}")).await.assert_ok();
        assert_eq!(page.all("PartNumber"), ["1"]);
        assert_eq!(page.element("IsTruncated"), "true");
        assert_eq!(page.element("NextPartNumberMarker"), "1");
    }
    for query in [
        "uploads=".to_owned(),
        format!("key-marker=large&upload-id-marker={id}&uploads="),
    ] {
        let page = client.get(&format!("/lhsm-sandbox?{query}")).await.assert_ok();
        assert_eq!(page.all("UploadId"), std::slice::from_ref(id));
        assert_eq!(page.element("NextUploadIdMarker"), *id);
    }
    client.server.faults().clear();
    let end = client.get(&format!("{KEY}?part-number-marker=1&uploadId={id}")).await;
    assert_eq!(end.assert_ok().all("PartNumber"), [""; 0]);
}
