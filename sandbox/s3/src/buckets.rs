//! Buckets: create, head, list, and whether they keep versions.

use s3s::dto::{
    Bucket as Entry, BucketVersioningStatus, CreateBucketInput, CreateBucketOutput, GetBucketVersioningInput,
    GetBucketVersioningOutput, HeadBucketInput, HeadBucketOutput, ListBucketsOutput,
};
use s3s::{S3ErrorCode, S3Response, S3Result};

use crate::index::Bucket;
use crate::store::Store;

pub(crate) fn create(store: &Store, input: &CreateBucketInput) -> S3Result<S3Response<CreateBucketOutput>> {
    let mut index = store.index();
    if index.buckets.contains_key(&input.bucket) {
        return Err(S3ErrorCode::BucketAlreadyOwnedByYou.into());
    }
    index.buckets.insert(input.bucket.clone(), Bucket::default());
    Ok(S3Response::new(CreateBucketOutput {
        location: Some(format!("/{}", input.bucket)),
    }))
}

pub(crate) fn head(store: &Store, input: &HeadBucketInput) -> S3Result<S3Response<HeadBucketOutput>> {
    store.index().bucket(&input.bucket)?;
    Ok(S3Response::new(HeadBucketOutput::default()))
}

pub(crate) fn list(store: &Store) -> S3Response<ListBucketsOutput> {
    let entry = |(name, bucket): (&String, &Bucket)| Entry {
        name: Some(name.clone()),
        creation_date: Some(bucket.created.into()),
        ..Entry::default()
    };
    let buckets = store.index().buckets.iter().map(entry).collect();
    S3Response::new(ListBucketsOutput {
        buckets: Some(buckets),
        ..ListBucketsOutput::default()
    })
}

pub(crate) fn versioning(
    store: &Store,
    input: &GetBucketVersioningInput,
) -> S3Result<S3Response<GetBucketVersioningOutput>> {
    store.index().bucket(&input.bucket)?;
    let enabled = BucketVersioningStatus::from_static(BucketVersioningStatus::ENABLED);
    let status = store.config.versioning.then_some(enabled);
    Ok(S3Response::new(GetBucketVersioningOutput {
        status,
        ..GetBucketVersioningOutput::default()
    }))
}
