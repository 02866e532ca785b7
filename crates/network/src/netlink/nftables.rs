//! The one question about nftables that is asked often enough not to run `nft` for it.

use nix::{errno::Errno, libc};

use super::{Message, NetlinkError, Socket};

/// `NFT_MSG_GETTABLE` of linux/netfilter/nf_tables.h.
const GET_TABLE: u16 = (libc::NFNL_SUBSYS_NFTABLES as u16) << 8 | 1;
/// `NFTA_TABLE_NAME`.
const TABLE_NAME: u16 = 1;
/// `NFPROTO_IPV4`.
const FAMILY_IP: u8 = 2;

/// Whether table `ip name` exists.
pub(crate) fn table_exists(name: &str) -> Result<bool, NetlinkError> {
    let request = Message::new(GET_TABLE, 0).fixed(&[FAMILY_IP, 0, 0, 0]).string(TABLE_NAME, name);
    match Socket::netfilter()?.query("look up the table", request) {
        Ok(_) => Ok(true),
        Err(NetlinkError { errno: Errno::ENOENT, .. }) => Ok(false),
        Err(error) => Err(error),
    }
}
