//! A peer for `scripts/bench --https`: the routes of its workloads `get`, `list`, `health`, `reject` and
//! `connect` in asynchronous Rust, with what makes that fast. It has no log, no `ETag`, no metrics and no limits.
//! To build it: `cargo build --release --locked --target-dir target --manifest-path scripts/https-peer/Cargo.toml`

#![forbid(unsafe_code)]

use axum::extract::{FromRequestParts, Path, State};
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE};
use axum::http::{StatusCode, request::Parts};
use axum::response::{IntoResponse, Response};
use axum::{Router, routing::get};
use axum_server::accept::NoDelayAcceptor;
use axum_server::tls_rustls::{RustlsAcceptor, RustlsConfig};
use deadpool_postgres::{Manager, ManagerConfig, Pool, RecyclingMethod};
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode};
use serde::{Deserialize, Serialize};
use std::{env, error::Error, net::SocketAddr, sync::Arc};
use tokio_postgres::{NoTls, Row, types::ToSql};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The same number as tinytasks has by default.
const DATABASE_CONNECTIONS: usize = 16;
/// More than a task of `scripts/bench` takes in JSON, so that the buffer of a body need not grow.
const TASK_BYTES: usize = 320;
const LIST: &str = "select id, user_id, title, description, complete, created_at, updated_at
    from tasks where user_id = $1 order by id";
const GET: &str = "select id, user_id, title, description, complete, created_at, updated_at
    from tasks where user_id = $1 and id = $2";

struct Peer {
    pool: Pool,
    key: DecodingKey,
    rules: Validation,
}

type Shared = State<Arc<Peer>>;
type Answer = Result<Response, Failure>;

impl Peer {
    async fn query(&self, sql: &str, values: &[&(dyn ToSql + Sync)]) -> Result<Vec<Row>, Failure> {
        let client = self.pool.get().await?;
        let statement = client.prepare_cached(sql).await?;
        Ok(client.query(&statement, values).await?)
    }
}

struct Failure(StatusCode, &'static str);

impl<E: Error> From<E> for Failure {
    fn from(error: E) -> Self {
        eprintln!("{error}");
        Self(StatusCode::INTERNAL_SERVER_ERROR, "see standard error")
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let body = serde_json::json!({ "detail": self.1 }).to_string();
        (self.0, [(CONTENT_TYPE, "application/json")], body).into_response()
    }
}

#[derive(Deserialize)]
struct Claims {
    sub: String,
}

#[derive(Deserialize)]
struct InPath {
    user_id: String,
}

/// The user in the path, who is also the user of the token.
struct Owner(String);

impl FromRequestParts<Arc<Peer>> for Owner {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, peer: &Arc<Peer>) -> Result<Self, Failure> {
        let field = parts.headers.get(AUTHORIZATION).and_then(|field| field.to_str().ok());
        let token = field.and_then(|field| field.strip_prefix("Bearer "));
        let verified = token.and_then(|token| decode::<Claims>(token, &peer.key, &peer.rules).ok());
        let verified = verified.ok_or(Failure(StatusCode::UNAUTHORIZED, "a valid token is needed"))?;
        let Path(InPath { user_id }) = Path::from_request_parts(parts, peer).await?;
        let is_owner = verified.claims.sub == user_id;
        is_owner.then_some(Self(user_id)).ok_or(Failure(StatusCode::FORBIDDEN, "the token is another user's"))
    }
}

#[derive(Serialize)]
struct Task<'a> {
    id: i64,
    user_id: &'a str,
    title: &'a str,
    description: Option<&'a str>,
    complete: bool,
    created_at: jiff::Timestamp,
    updated_at: jiff::Timestamp,
}

fn task(row: &Row) -> Task<'_> {
    let (id, user_id, title, description) = (row.get(0), row.get(1), row.get(2), row.get(3));
    let (complete, created_at, updated_at) = (row.get(4), row.get(5), row.get(6));
    Task { id, user_id, title, description, complete, created_at, updated_at }
}

#[derive(Serialize)]
struct List<'a> {
    tasks: Vec<Task<'a>>,
    count: usize,
}

fn json(value: &impl Serialize, size: usize) -> Answer {
    let mut body = Vec::with_capacity(size);
    serde_json::to_writer(&mut body, value)?;
    Ok(([(CONTENT_TYPE, "application/json")], body).into_response())
}

async fn health(State(peer): Shared) -> Answer {
    peer.query("select 1", &[]).await?;
    json(&serde_json::json!({ "status": "healthy" }), TASK_BYTES)
}

async fn list(State(peer): Shared, Owner(user): Owner) -> Answer {
    let rows = peer.query(LIST, &[&user]).await?;
    json(&List { tasks: rows.iter().map(task).collect(), count: rows.len() }, TASK_BYTES * (rows.len() + 1))
}

async fn one(State(peer): Shared, Owner(user): Owner, Path((_, id)): Path<(String, i64)>) -> Answer {
    let rows = peer.query(GET, &[&user, &id]).await?;
    let row = rows.first().ok_or(Failure(StatusCode::NOT_FOUND, "there is no such task"))?;
    json(&task(row), TASK_BYTES)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let setting = |name| env::var(name).map_err(|error| format!("{name}: {error}"));
    let connect = ManagerConfig { recycling_method: RecyclingMethod::Fast };
    let manager = Manager::from_config(setting("DATABASE_URL")?.parse()?, NoTls, connect);
    let pool = Pool::builder(manager).max_size(DATABASE_CONNECTIONS).build()?;
    let key = DecodingKey::from_secret(setting("JWT_SECRET_KEY")?.as_bytes());
    let peer = Peer { pool, key, rules: Validation::new(Algorithm::HS256) };
    let routes = Router::new()
        .route("/health", get(health))
        .route("/api/{user_id}/tasks", get(list))
        .route("/api/{user_id}/tasks/{task_id}", get(one))
        .with_state(Arc::new(peer))
        .into_make_service();
    let address: SocketAddr = format!("{}:{}", setting("HOST")?, setting("PORT")?).parse()?;
    let server = axum_server::bind(address).http1_only().acceptor(NoDelayAcceptor::new());
    let Ok(certificate) = setting("TLS_CERT_FILE") else {
        return Ok(server.serve(routes).await?);
    };
    // RustlsConfig uses the default provider of the process. This makes it ring, which tinytasks uses too.
    rustls::crypto::ring::default_provider().install_default().map_err(|_| "there is another provider")?;
    let tls = RustlsConfig::from_pem_file(certificate, setting("TLS_KEY_FILE")?).await?;
    let mut config = (*tls.get_inner()).clone();
    config.alpn_protocols = vec![b"http/1.1".to_vec()]; // it offers HTTP/2 otherwise
    let tls = RustlsAcceptor::new(RustlsConfig::from_config(Arc::new(config)));
    Ok(server.map(|plain| tls.acceptor(plain)).serve(routes).await?)
}
