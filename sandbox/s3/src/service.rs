//! The operations as the S3 protocol layer calls them: each is counted, goes through the faults, and is served.

use std::sync::Arc;

use s3s::dto::{
    AbortMultipartUploadInput, AbortMultipartUploadOutput, CompleteMultipartUploadInput, CompleteMultipartUploadOutput,
    CopyObjectInput, CopyObjectOutput, CreateBucketInput, CreateBucketOutput, CreateMultipartUploadInput,
    CreateMultipartUploadOutput, DeleteObjectInput, DeleteObjectOutput, DeleteObjectsInput, DeleteObjectsOutput,
    GetBucketVersioningInput, GetBucketVersioningOutput, GetObjectAttributesInput, GetObjectAttributesOutput,
    GetObjectInput, GetObjectOutput, HeadBucketInput, HeadBucketOutput, HeadObjectInput, HeadObjectOutput,
    ListBucketsInput, ListBucketsOutput, ListMultipartUploadsInput, ListMultipartUploadsOutput,
    ListObjectVersionsInput, ListObjectVersionsOutput, ListObjectsV2Input, ListObjectsV2Output, ListPartsInput,
    ListPartsOutput, PutObjectInput, PutObjectOutput, RestoreObjectInput, RestoreObjectOutput, StreamingBlob,
    UploadPartInput, UploadPartOutput,
};
use s3s::{S3, S3Request, S3Response, S3Result};

use crate::receive::{begin, drain};
use crate::store::Store;
use crate::tricks::{Answer, Trick, cut, is_cut};
use crate::{attributes, buckets, cold, complete, delete, list, multipart, object, uploads};

/// The S3 service over a store.
#[derive(Debug, Clone)]
pub(crate) struct Service {
    store: Arc<Store>,
}

impl Service {
    pub(crate) fn new(store: Arc<Store>) -> Self {
        Self { store }
    }

    async fn enter(&self, op: &'static str) -> S3Result<()> {
        self.store.stats.request(op);
        self.store.faults.enter(op).await
    }

    /// The same for an operation that takes a body, which a refused request leaves unread.
    async fn enter_with(&self, op: &'static str, body: &mut Option<StreamingBlob>) -> S3Result<()> {
        let entered = self.enter(op).await;
        match entered.as_ref().err().map(is_cut) {
            None => {}
            Some(true) => begin(body.take()).await,
            Some(false) => drain(body.take()).await,
        }
        entered
    }

    /// Where an answer may get lost.
    fn leave(&self, op: &'static str) -> S3Result<()> {
        if self.store.faults.plays(Trick::LostAnswer, op) {
            return Err(cut());
        }
        Ok(())
    }

    /// The same for one that may not be true, too.
    fn answer<T: Answer>(&self, op: &'static str, mut answer: S3Response<T>) -> S3Result<S3Response<T>> {
        self.leave(op)?;
        self.store.faults.bend(op, &mut answer.output);
        Ok(answer)
    }
}

#[async_trait::async_trait]
impl S3 for Service {
    async fn put_object(&self, mut request: S3Request<PutObjectInput>) -> S3Result<S3Response<PutObjectOutput>> {
        self.enter_with("PutObject", &mut request.input.body).await?;
        let answer = object::put(&self.store, request).await?;
        self.answer("PutObject", answer)
    }

    async fn upload_part(&self, mut request: S3Request<UploadPartInput>) -> S3Result<S3Response<UploadPartOutput>> {
        self.enter_with("UploadPart", &mut request.input.body).await?;
        let input = &request.input;
        multipart::vanish(&self.store, "UploadPart", &input.bucket, &input.key, &input.upload_id);
        let answer = multipart::upload_part(&self.store, request).await?;
        self.answer("UploadPart", answer)
    }

    async fn create_bucket(&self, request: S3Request<CreateBucketInput>) -> S3Result<S3Response<CreateBucketOutput>> {
        self.enter("CreateBucket").await?;
        buckets::create(&self.store, &request.input)
    }

    async fn head_bucket(&self, request: S3Request<HeadBucketInput>) -> S3Result<S3Response<HeadBucketOutput>> {
        self.enter("HeadBucket").await?;
        buckets::head(&self.store, &request.input)
    }

    async fn list_buckets(&self, _request: S3Request<ListBucketsInput>) -> S3Result<S3Response<ListBucketsOutput>> {
        self.enter("ListBuckets").await?;
        Ok(buckets::list(&self.store))
    }

    async fn get_bucket_versioning(
        &self,
        request: S3Request<GetBucketVersioningInput>,
    ) -> S3Result<S3Response<GetBucketVersioningOutput>> {
        self.enter("GetBucketVersioning").await?;
        buckets::versioning(&self.store, &request.input)
    }

    async fn get_object(&self, request: S3Request<GetObjectInput>) -> S3Result<S3Response<GetObjectOutput>> {
        self.enter("GetObject").await?;
        let answer = object::get(&self.store, request)?;
        self.answer("GetObject", answer)
    }

    async fn head_object(&self, request: S3Request<HeadObjectInput>) -> S3Result<S3Response<HeadObjectOutput>> {
        self.enter("HeadObject").await?;
        object::head(&self.store, request.input)
    }

    async fn restore_object(
        &self,
        request: S3Request<RestoreObjectInput>,
    ) -> S3Result<S3Response<RestoreObjectOutput>> {
        self.enter("RestoreObject").await?;
        cold::restore(&self.store, &request.input)
    }

    async fn get_object_attributes(
        &self,
        request: S3Request<GetObjectAttributesInput>,
    ) -> S3Result<S3Response<GetObjectAttributesOutput>> {
        self.enter("GetObjectAttributes").await?;
        attributes::get(&self.store, &request.input)
    }

    async fn copy_object(&self, request: S3Request<CopyObjectInput>) -> S3Result<S3Response<CopyObjectOutput>> {
        self.enter("CopyObject").await?;
        object::copy(&self.store, request)
    }

    async fn delete_object(&self, request: S3Request<DeleteObjectInput>) -> S3Result<S3Response<DeleteObjectOutput>> {
        self.enter("DeleteObject").await?;
        let answer = delete::one(&self.store, request.input)?;
        self.leave("DeleteObject")?;
        Ok(answer)
    }

    async fn delete_objects(
        &self,
        request: S3Request<DeleteObjectsInput>,
    ) -> S3Result<S3Response<DeleteObjectsOutput>> {
        self.enter("DeleteObjects").await?;
        delete::many(&self.store, request.input)
    }

    async fn list_objects_v2(
        &self,
        request: S3Request<ListObjectsV2Input>,
    ) -> S3Result<S3Response<ListObjectsV2Output>> {
        self.enter("ListObjectsV2").await?;
        list::objects(&self.store, request.input)
    }

    async fn list_object_versions(
        &self,
        request: S3Request<ListObjectVersionsInput>,
    ) -> S3Result<S3Response<ListObjectVersionsOutput>> {
        self.enter("ListObjectVersions").await?;
        list::versions(&self.store, request.input)
    }

    async fn create_multipart_upload(
        &self,
        request: S3Request<CreateMultipartUploadInput>,
    ) -> S3Result<S3Response<CreateMultipartUploadOutput>> {
        self.enter("CreateMultipartUpload").await?;
        multipart::create(&self.store, &request.input)
    }

    async fn complete_multipart_upload(
        &self,
        request: S3Request<CompleteMultipartUploadInput>,
    ) -> S3Result<S3Response<CompleteMultipartUploadOutput>> {
        const OP: &str = "CompleteMultipartUpload";
        self.enter(OP).await?;
        let input = &request.input;
        multipart::vanish(&self.store, OP, &input.bucket, &input.key, &input.upload_id);
        let answer = complete::complete(&self.store, &request.input)?;
        self.answer(OP, answer)
    }

    async fn abort_multipart_upload(
        &self,
        request: S3Request<AbortMultipartUploadInput>,
    ) -> S3Result<S3Response<AbortMultipartUploadOutput>> {
        self.enter("AbortMultipartUpload").await?;
        multipart::abort(&self.store, &request.input)
    }

    async fn list_parts(&self, request: S3Request<ListPartsInput>) -> S3Result<S3Response<ListPartsOutput>> {
        self.enter("ListParts").await?;
        uploads::parts(&self.store, request.input)
    }

    async fn list_multipart_uploads(
        &self,
        request: S3Request<ListMultipartUploadsInput>,
    ) -> S3Result<S3Response<ListMultipartUploadsOutput>> {
        self.enter("ListMultipartUploads").await?;
        uploads::uploads(&self.store, request.input)
    }
}
