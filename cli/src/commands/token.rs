//! `cairn token create`

use crate::arguments::{Access, Token, TokenAction, TokenCreate};
use crate::identity::{Membership, Wanted, ask, membership};
use crate::places;
use anyhow::{Result, bail};
use cairn_common::wire::master::{MasterReply, MasterRequest, Role};
use cairn_runtime::Runtime;
use std::path::{Path, PathBuf};

pub fn run(options: Token) -> Result<()> {
    let TokenAction::Create(options) = options.action;
    super::in_role("token", |runtime| async move {
        let token = create(&runtime, options).await?;
        println!("{token}");
        Ok(())
    })
}

async fn create(runtime: &Runtime, options: TokenCreate) -> Result<String> {
    let member = operator(runtime, &options.access, options.data.as_deref()).await?;
    let request = MasterRequest::CreateToken { role: options.role.into(), lifetime_seconds: options.ttl };
    match ask(runtime, member.master, member.credentials, &request).await? {
        MasterReply::Token { token } => Ok(token),
        other => bail!("the master answered something else to a request for a token: {other:?}"),
    }
}

/// Whose certificate an operator's command uses: that of the master on this machine, or the client's own.
pub async fn operator(runtime: &Runtime, access: &Access, master_data: Option<&Path>) -> Result<Membership> {
    let directory: PathBuf = match master_data {
        Some(data) => super::master::operator_directory(data),
        None => places::identity(access)?,
    };
    if let Some(data) = master_data
        && !runtime.disk.exists(&directory.join("certificate"))?
    {
        bail!("{} is not the data directory of a master that has been started", data.display());
    }
    let wanted = Wanted { role: Role::Client, directory: &directory, master: access.master.clone(), token: access.token.as_deref() };
    membership(runtime, wanted).await
}
