//! What others take for the same bytes to and from the same store. One that is not installed is left out,
//! and said.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::{Cost, measure};

type Costs = Vec<(&'static str, Option<Cost>)>;

pub(crate) fn credentials(command: &mut Command) -> &mut Command {
    command
        .env("AWS_ACCESS_KEY_ID", "bench")
        .env("AWS_SECRET_ACCESS_KEY", "bench-secret")
        .env("AWS_REGION", "us-east-1")
        .env("AWS_EC2_METADATA_DISABLED", "true")
}

fn installed(program: &str, arguments: &[&str]) -> bool {
    let found = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    if !found {
        println!("({program} {} is not installed here)", arguments.join(" "));
    }
    found
}

fn curl(ca: Option<&Path>) -> Option<Command> {
    installed("curl", &["--version"]).then(|| {
        let mut command = Command::new("curl");
        command.args(["-sS", "--fail"]);
        if let Some(ca) = ca {
            command.arg("--cacert").arg(ca);
        }
        command
    })
}

fn python(module: &str, script: &str, ca: Option<&Path>) -> Option<Command> {
    let import = format!("import {module}");
    installed("python3", &["-c", &import]).then(|| {
        let mut command = Command::new("python3");
        command.args(["-c", script]);
        if let Some(ca) = ca {
            command.env("AWS_CA_BUNDLE", ca);
        }
        credentials(&mut command);
        command
    })
}

fn rclone(url: &str, ca: Option<&Path>) -> Option<Command> {
    installed("rclone", &["version"]).then(|| {
        let mut command = Command::new("rclone");
        command
            .args([
                "copyto",
                "--config",
                "/dev/null",
                "--s3-provider",
                "Other",
                "--s3-env-auth",
            ])
            .args(["--s3-no-check-bucket", "--ignore-checksum", "--retries", "1"])
            .args(["--s3-endpoint", url]);
        if let Some(ca) = ca {
            command.arg("--ca-cert").arg(ca);
        }
        // rclone's SDK can't put that one into rclone's own transport.
        credentials(&mut command).env_remove("AWS_CA_BUNDLE");
        command
    })
}

/// `all`: also those that are too slow to be run in each round.
pub(crate) fn put(source: &Path, url: &str, ca: Option<&Path>, all: bool) -> Costs {
    let mut costs: Costs = Vec::new();
    if let Some(mut curl) = curl(ca) {
        let command = curl.arg("-T").arg(source).arg(format!("{url}/bench/object"));
        costs.push(("curl", measure(command)));
    }
    if !all {
        return costs;
    }
    if let Some(mut boto) = python("boto3", BOTO3, ca) {
        let command = boto.arg(url).arg("put").arg(source);
        costs.push(("boto3", measure(command)));
    }
    if let Some(mut crt) = python("awscrt.s3", AWSCRT, ca).filter(|_| ca.is_none()) {
        costs.push(("awscrt", measure(crt.arg(url).arg("put").arg(source))));
    }
    if let Some(mut rclone) = rclone(url, ca) {
        let command = rclone.arg(source).arg(":s3:bench/object");
        costs.push(("rclone", measure(command)));
    }
    costs
}

pub(crate) fn get(dir: &Path, size: u64, url: &str, ca: Option<&Path>, all: bool) -> Costs {
    let object = format!("object-{size}");
    let target = dir.join("out");
    let mut costs: Costs = Vec::new();
    let mut note = |name, command: &mut Command| {
        let cost = measure(command);
        let whole = std::fs::metadata(&target).is_ok_and(|stat| stat.len() == size);
        assert!(whole || cost.is_none(), "{name} did not fetch all of it");
        // Absent when it failed.
        let _absent = std::fs::remove_file(&target);
        costs.push((name, cost));
    };
    if let Some(mut curl) = curl(ca) {
        note("curl", curl.arg("-o").arg(&target).arg(format!("{url}/bench/{object}")));
    }
    if !all {
        return costs;
    }
    if let Some(mut boto) = python("boto3", BOTO3, ca) {
        note("boto3", boto.arg(url).arg("get").arg(&target).arg(&object));
    }
    if let Some(mut crt) = python("awscrt.s3", AWSCRT, ca).filter(|_| ca.is_none()) {
        note("awscrt", crt.arg(url).arg("get").arg(&target).arg(&object));
    }
    if let Some(mut rclone) = rclone(url, ca) {
        note("rclone", rclone.arg(format!(":s3:bench/{object}")).arg(&target));
    }
    costs
}

const BOTO3: &str = r#"
import sys, boto3
from botocore.config import Config
url, way, path = sys.argv[1:4]
s3 = boto3.client("s3", endpoint_url=url, config=Config(s3={"addressing_style": "path"}))
if way == "put":
    s3.upload_file(path, "bench", "object")
else:
    s3.download_file("bench", sys.argv[4], path)
"#;

const AWSCRT: &str = r#"
import os, sys
from urllib.parse import urlparse
from awscrt.auth import AwsCredentialsProvider
from awscrt.http import HttpHeaders, HttpRequest
from awscrt.io import ClientBootstrap, DefaultHostResolver, EventLoopGroup
from awscrt.s3 import (S3ChecksumAlgorithm, S3ChecksumConfig, S3ChecksumLocation, S3Client, S3RequestTlsMode,
                       S3RequestType)
url, way, path = sys.argv[1:4]
group = EventLoopGroup()
bootstrap = ClientBootstrap(group, DefaultHostResolver(group))
client = S3Client(bootstrap=bootstrap, region="us-east-1", tls_mode=S3RequestTlsMode.DISABLED,
                  credential_provider=AwsCredentialsProvider.new_static("bench", "bench-secret"),
                  part_size=16 << 20, throughput_target_gbps=10)
host = urlparse(url).netloc
headers = HttpHeaders([("Host", host)])
if way == "put":
    headers.set("Content-Length", str(os.stat(path).st_size))
    request = HttpRequest("PUT", "/bench/object", headers)
    work = client.make_request(request=request, type=S3RequestType.PUT_OBJECT, send_filepath=path,
        checksum_config=S3ChecksumConfig(algorithm=S3ChecksumAlgorithm.CRC64NVME,
                                         location=S3ChecksumLocation.TRAILER))
else:
    request = HttpRequest("GET", "/bench/" + sys.argv[4], headers)
    work = client.make_request(request=request, type=S3RequestType.GET_OBJECT, recv_filepath=path)
work.finished_future.result(300)
"#;
