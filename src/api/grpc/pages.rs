//! Pages that fit a message: what does not is read again with fewer rows.

use prost::Message;
use tonic::Status;

use crate::domain::limits;
use crate::service::PageRequest;
use crate::wire::convert::field::PageQuery;

/// Reads a page, with fewer rows than were asked for when it would not fit a message. One row is answered whatever its
/// size.
pub async fn fitting<M, F>(query: PageQuery, read: impl Fn(PageRequest) -> F) -> Result<M, Status>
where
    M: Message,
    F: Future<Output = Result<M, Status>>,
{
    let PageQuery { mut size, token } = query;
    loop {
        let message = read(PageRequest { size, token: token.clone() }).await?;
        if message.encoded_len() <= limits::MESSAGE_BYTES_MAX || size <= 1 {
            return Ok(message);
        }
        size /= 2;
    }
}
