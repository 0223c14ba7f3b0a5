//! The server: its socket, its connections, and the back door for tests.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use bytes::Bytes;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use s3s::auth::{S3Auth, SecretKey};
use s3s::service::{S3Service, S3ServiceBuilder};
use s3s::{HttpError, S3ErrorCode, S3Result};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

use crate::blob::Blob;
use crate::checksum::{Kind, Shown};
use crate::condition::Condition;
use crate::config::Config;
use crate::dialects::Dialects;
use crate::etag::Forms;
use crate::faults::Faults;
use crate::front;
use crate::heed::Heed;
use crate::index::{Attributes, Object};
use crate::service::Service;
use crate::stats::Stats;
use crate::store::Store;
use crate::sums::Hasher;
use crate::tricks::CUT;

/// What is known of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectInfo {
    /// Its key.
    pub key: String,
    /// Its length in bytes.
    pub size: u64,
    /// Its ETag, without quotes.
    pub etag: String,
    /// Its user metadata.
    pub metadata: BTreeMap<String, String>,
    /// What its write asked for besides: acl, encryption, kms_key, customer_key_md5, tagging, storage_class.
    pub asked: BTreeMap<&'static str, String>,
}

#[derive(Debug)]
struct Inner {
    address: SocketAddr,
    keys: Keys,
    store: Arc<Store>,
    /// Its end is the end of the server, so that one that is merely dropped goes as well.
    stop: watch::Sender<bool>,
    task: Mutex<Option<JoinHandle<()>>>,
}

/// A running server. Clones are handles of the same one, which ends with the last of them.
#[derive(Debug, Clone)]
pub struct Server {
    inner: Arc<Inner>,
}

impl Server {
    /// Binds the socket, and serves on tasks of the current runtime.
    ///
    /// # Errors
    ///
    /// When the address cannot be bound, or the directory of the bodies cannot be made.
    pub async fn start(config: Config) -> io::Result<Self> {
        let listener = TcpListener::bind(config.bind).await?;
        let address = listener.local_addr()?;
        let keys = Arc::new(Mutex::new((config.access_key.clone(), config.secret_key.clone())));
        let auth = Auth(Arc::clone(&keys));
        let store = Arc::new(Store::new(config)?);
        let mut builder = S3ServiceBuilder::new(Service::new(Arc::clone(&store)));
        builder.set_auth(auth);
        builder.set_access(Heed::new(Arc::clone(&store)));
        let stop = watch::Sender::new(false);
        let accept = accept(listener, builder.build(), Arc::clone(&store), stop.subscribe());
        let task = Mutex::new(Some(tokio::spawn(accept)));
        Ok(Self {
            inner: Arc::new(Inner {
                address,
                keys,
                store,
                stop,
                task,
            }),
        })
    }

    /// From now on this is the one pair of keys.
    pub fn set_keys(&self, access_key: &str, secret_key: &str) {
        *self.inner.keys.lock().unwrap_or_else(PoisonError::into_inner) = (access_key.into(), secret_key.into());
    }

    /// The address that it listens on.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.inner.address
    }

    /// Its URL, without a slash at the end.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.inner.address)
    }

    /// The switches of its faults.
    #[must_use]
    pub fn faults(&self) -> &Faults {
        &self.inner.store.faults
    }

    /// The switches of its dialects. The faults are apart from them: clearing the ones leaves the others.
    #[must_use]
    pub fn dialects(&self) -> &Dialects {
        &self.inner.store.dialects
    }

    pub(crate) fn store(&self) -> &Store {
        &self.inner.store
    }

    /// What it has been asked so far.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.inner.store.stats.snapshot()
    }

    /// The current objects of a bucket, in the order of their keys. None when there is no such bucket.
    #[must_use]
    pub fn objects(&self, bucket: &str) -> Vec<ObjectInfo> {
        let forms = Forms::of(&self.inner.store.dialects);
        let index = self.inner.store.index();
        let objects = index
            .buckets
            .get(bucket)
            .into_iter()
            .flat_map(|bucket| bucket.objects());
        objects
            .map(|(key, object)| ObjectInfo {
                key: key.clone(),
                size: object.size,
                etag: forms.value(&object.etag),
                metadata: object
                    .attributes
                    .metadata
                    .iter()
                    .flatten()
                    .map(|(k, v)| (k.clone(), v.clone()))
                    .collect(),
                asked: object.attributes.asked.iter().cloned().collect(),
            })
            .collect()
    }

    /// The bytes of a current object, all in memory. Blocks on the disk.
    #[must_use]
    pub fn object_body(&self, bucket: &str, key: &str) -> Option<Vec<u8>> {
        let object = Arc::clone(self.inner.store.index().buckets.get(bucket)?.current(key)?);
        let mut body = Vec::new();
        for blob in &object.blobs {
            body.extend_from_slice(&blob.read().ok()?);
        }
        Some(body)
    }

    /// All versions in a bucket by their keys, and whether each is a delete marker.
    #[must_use]
    pub fn versions(&self, bucket: &str) -> Vec<(String, bool)> {
        let index = self.inner.store.index();
        let keys = index.buckets.get(bucket).into_iter().flat_map(|bucket| &bucket.keys);
        keys.flat_map(|(key, versions)| {
            versions
                .iter()
                .map(move |version| (key.clone(), version.object.is_none()))
        })
        .collect()
    }

    /// The multipart uploads in progress in a bucket, as key and upload id.
    #[must_use]
    pub fn uploads(&self, bucket: &str) -> Vec<(String, String)> {
        let index = self.inner.store.index();
        index
            .buckets
            .get(bucket)
            .into_iter()
            .flat_map(|bucket| bucket.uploads.keys().cloned())
            .collect()
    }

    /// Puts an object by the back door: neither counted nor subject to faults. Makes the bucket if need be.
    pub fn put(&self, bucket: &str, key: &str, bytes: impl Into<Bytes>, metadata: BTreeMap<String, String>) {
        let attributes = Attributes {
            metadata: Some(metadata.into_iter().collect()),
            ..Attributes::default()
        };
        self.place(bucket, key, bytes.into(), attributes);
    }

    pub(crate) fn place(&self, bucket: &str, key: &str, bytes: Bytes, attributes: Attributes) {
        let store = &self.inner.store;
        let mut hasher = Hasher::new(None);
        hasher.update(&bytes);
        let sums = hasher.finish();
        let shown = sums
            .get(Kind::Crc64Nvme)
            .filter(|sum| store.knows(sum.kind))
            .map(Shown::whole);
        let object = Object {
            size: bytes.len() as u64,
            etag: sums.etag(),
            modified: SystemTime::now(),
            attributes,
            checksum: shown,
            blobs: vec![Arc::new(Blob::Memory(bytes))],
            parts: Vec::new(),
        };
        self.add(bucket, key, object);
    }

    /// Makes it the current object of a key, whatever is there. Makes the bucket if need be.
    pub(crate) fn add(&self, bucket: &str, key: &str, object: Object) {
        let store = &self.inner.store;
        let object = Arc::new(object);
        let version = store.new_version();
        let mut index = store.index();
        let bucket = index.buckets.entry(bucket.to_owned()).or_default();
        let displaced = bucket.put(key, &object, version, &Condition::default());
        drop(index);
        drop(displaced);
    }

    /// Deletes an object by the back door, as a DELETE without a version would. False when there was none.
    pub fn delete(&self, bucket: &str, key: &str) -> bool {
        let store = &self.inner.store;
        let mut index = store.index();
        let Some(bucket) = index.buckets.get_mut(bucket) else {
            return false;
        };
        let existed = bucket.current(key).is_some();
        let deleted = bucket.delete(key, None, store.new_version());
        drop(index);
        drop(deleted);
        existed
    }

    /// Takes away whatever is not the newest version of its key, as a lifecycle rule does (NoncurrentVersionExpiration).
    pub fn expire_noncurrent(&self, bucket: &str) {
        let mut index = self.inner.store.index();
        let mut expired = Vec::new();
        for versions in index
            .buckets
            .get_mut(bucket)
            .into_iter()
            .flat_map(|bucket| bucket.keys.values_mut())
        {
            let newest = versions.split_off(versions.len().saturating_sub(1));
            expired.extend(std::mem::replace(versions, newest));
        }
        drop(index);
        drop(expired);
    }

    /// Ends the server: it closes its socket and all connections, whatever they are at, and then returns.
    pub async fn stop(self) {
        self.inner.stop.send_replace(true);
        let task = self.inner.task.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(task) = task {
            // It fails only by a panic of the accept loop, and then it has ended too.
            drop(task.await);
        }
    }
}

/// Access key and secret.
type Keys = Arc<Mutex<(String, String)>>;

/// The one pair of keys. An unknown access key is named as S3 names it.
struct Auth(Keys);

#[async_trait::async_trait]
impl S3Auth for Auth {
    async fn get_secret_key(&self, access_key: &str) -> S3Result<SecretKey> {
        let (known, secret) = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if access_key == known {
            return Ok(secret.into());
        }
        Err(S3ErrorCode::InvalidAccessKeyId.into())
    }
}

/// Accepts connections until the server is stopped; then its end takes the connections along.
async fn accept(listener: TcpListener, service: S3Service, store: Arc<Store>, mut stop: watch::Receiver<bool>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => break,
            // Reaped as they end, or the set would only grow.
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => {
                if let Ok((stream, _)) = accepted {
                    connections.spawn(serve(stream, service.clone(), Arc::clone(&store)));
                }
            }
        }
    }
    drop(listener);
    connections.shutdown().await;
}

async fn serve(stream: TcpStream, service: S3Service, store: Arc<Store>) {
    // Without it an answer of several writes may wait for an acknowledgement; the connection works either way.
    drop(stream.set_nodelay(true));
    let answer = service_fn(move |request: hyper::Request<Incoming>| {
        let (service, store) = (service.clone(), Arc::clone(&store));
        async move {
            store.faults.pass_hang().await;
            let answer = front::serve(&store, &service, request).await?;
            if answer.status().as_u16() == CUT {
                return Err(HttpError::new("cut by a fault".into()));
            }
            Ok(answer)
        }
    });
    // An error is a client that went away, or a body that a fault cut.
    drop(
        http1::Builder::new()
            .serve_connection(TokioIo::new(stream), answer)
            .await,
    );
}
