//! The service's own storage.

use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use tonic::{Request, Response, Status};

use crate::domain::limits;
use crate::service::{BackupPart, Service};
use crate::wire::admin::v1;
use crate::wire::admin::v1::backup_response::Part;
use crate::wire::admin::v1::store_service_server::{StoreService, StoreServiceServer};

use super::call;

/// See [`StoreService`].
#[derive(Debug)]
pub struct StoreEdge {
    service: Service,
}

impl StoreEdge {
    pub fn server(service: Service) -> StoreServiceServer<Self> {
        StoreServiceServer::new(Self { service }).max_decoding_message_size(limits::MESSAGE_BYTES_MAX)
    }
}

fn part(part: BackupPart) -> Part {
    match part {
        BackupPart::File { name, bytes, files_left } => Part::File(v1::BackupFile { name, bytes, files_left }),
        BackupPart::Chunk(bytes) => Part::Chunk(bytes),
        BackupPart::End { sha256 } => Part::End(v1::BackupFileEnd { sha256 }),
    }
}

#[tonic::async_trait]
impl StoreService for StoreEdge {
    type BackupStream = BoxStream<'static, Result<v1::BackupResponse, Status>>;

    async fn backup(&self, request: Request<v1::BackupRequest>) -> Result<Response<Self::BackupStream>, Status> {
        let by = call::allowed(&request)?.by;
        let parts = self.service.back_up(&by).await?;
        let told = parts.map(|found| Ok(v1::BackupResponse { part: Some(part(found?)) }));
        Ok(Response::new(told.boxed()))
    }
}
