//! Whether a bucket keeps its objects from being deleted for a time.

use super::{Store, StoreError};

impl Store {
    /// The retention that each new object of the bucket gets, in words; `None`: none is set.
    ///
    /// # Errors
    /// The store's refusal: many do not know the question.
    pub async fn retention(&self) -> Result<Option<String>, StoreError> {
        let asked = self
            .client()
            .get_object_lock_configuration()
            .bucket(&self.target().bucket)
            .send()
            .await
            .map_err(|error| StoreError::from_sdk("GetObjectLockConfiguration", &error));
        let answer = match asked {
            Ok(answer) => answer,
            // A bucket that has none says so by a 404.
            Err(StoreError::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(error),
        };
        let rule = answer.object_lock_configuration().and_then(|lock| lock.rule());
        let retention = rule.and_then(|rule| rule.default_retention());
        Ok(retention.map(|retention| {
            let mode = retention.mode().map_or("retained", |mode| mode.as_str());
            match (retention.days(), retention.years()) {
                (Some(days), _) => format!("{mode} for {days} days"),
                (None, Some(years)) => format!("{mode} for {years} years"),
                (None, None) => mode.to_owned(),
            }
        }))
    }
}
