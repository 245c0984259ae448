//! `vswap cache mount`.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use vswap::objects::{Store, StoreConfig};
use vswap_mount::MountConfig;

use crate::args::{MountArgs, ObjectArgs};
use crate::say;

/// Mounts, and returns when it has been unmounted.
pub fn mount(args: &MountArgs) -> Result<(), Box<dyn Error>> {
    let config = MountConfig {
        source: args.source.clone(),
        mountpoint: args.mountpoint.clone(),
        volume: args.volume.as_ref().map(|volume| volume.0.clone()),
        ttl: Duration::from_secs_f64(args.ttl),
        read_only: args.read_only,
        plain_copies: args.plain_copies,
        allow_other: args.allow_other,
    };
    // The kernel keeps what is read often.
    let of_store = StoreConfig { page_cache: 0, ..StoreConfig::default() };
    let store = Store::open(&args.store, &of_store)?;
    let (lender, mut lending) = (Arc::clone(&store), None);
    let ready = || {
        // Not before: its thread would get signals that are the mount's.
        match lender.lend(&args.store) {
            Ok(begun) => lending = Some(begun),
            Err(error) => say::say(format!("no other program can have room of the store: {error}")),
        }
        say::say(format!("{} is shown at {}", config.source.display(), config.mountpoint.display()));
    };
    let served = vswap_mount::serve(&config, store, &args.store, ready, say::say);
    let borrowers = lending.map_or(0, |lending| lending.borrowers());
    if borrowers > 0 {
        say::say(format!(
            "{borrowers} others have room of the store: nobody can open {} until they end",
            args.store.display()
        ));
    }
    Ok(served?)
}

/// Pins what a mount shows at a path and below, or lets it go.
pub fn pin_tree(args: &ObjectArgs, is: bool) -> Result<(), Box<dyn Error>> {
    let store = crate::cache::open(&args.store)?;
    let (volume, objects) = (&args.volume.0, vswap_mount::objects_of_tree(&args.key.0));
    let mut keys = objects.own;
    for prefix in &objects.below {
        store.list(volume, prefix, |listed| {
            keys.push(listed.key);
            true
        })?;
    }
    let mut found = Vec::new();
    for key in &keys {
        found.extend(store.find(volume, key)?);
    }
    if found.is_empty() {
        let path = String::from_utf8_lossy(&args.key.0);
        return Err(format!(
            "nothing of {path:?} is in {}: read it through the mount first",
            args.store.display()
        )
        .into());
    }
    if is {
        for key in &objects.way {
            found.extend(store.find(volume, key)?);
        }
    }
    for object in found {
        match is {
            true => object.pin()?,
            false => object.unpin(),
        }
    }
    Ok(store.sync()?)
}
