//! The handlers of `/` and `/health`.

use super::App;
use super::response::Response;
use crate::error::Error;
use crate::store::Readiness;
use serde_json::json;

/// `GET /`.
pub fn root(_: &App) -> Result<Response<'_>, Error> {
    let message = "tinytasks, a to-do task service";
    let links = json!({"message": message, "docs": "/docs", "openapi": "/openapi.json", "health": "/health"});
    Response::json(200, &links)
}

/// `GET /health`.
pub fn health(app: &App) -> Result<Response<'_>, Error> {
    let (code, status, database) = match app.store.pool.readiness() {
        Readiness::Ready => (200, "healthy", "connected"),
        Readiness::Unreachable => (503, "unhealthy", "disconnected"),
        Readiness::NotReady => (503, "unhealthy", "not ready"),
    };
    let version = env!("CARGO_PKG_VERSION");
    let health = json!({"status": status, "service": "tinytasks", "version": version, "database": database});
    Response::json(code, &health)
}
