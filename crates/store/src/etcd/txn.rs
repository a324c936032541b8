//! A commit as an etcd transaction.
//!
//! The rule to know: one commit is one transaction, whatever its size. etcd limits what the levels of a transaction
//! have in all (`--max-txn-ops`, 128), not what a transaction has, so larger ones are nested.

use std::collections::BTreeMap;

use model::Key;
use tonic::{Code, Status};

use super::{
    keys::{Keys, signed, unsigned},
    proto::{
        Compare, DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, ResponseOp, TxnRequest,
        compare::{CompareResult, CompareTarget, TargetUnion},
        request_op::Request,
        response_op::Response,
    },
};
use crate::{Commit, Expect, Write};

/// Operations or comparisons at one level. Four levels are etcd's 128, and more than a message holds.
const WIDTH: usize = 32;

/// The transaction that does `commit`, with the lease of each ttl. If an expectation fails it reads what is there;
/// if it has too many for that, etcd refuses the whole.
pub(super) fn request(commit: &Commit, keys: &Keys, leases: &BTreeMap<u64, i64>) -> TxnRequest {
    let writes = commit.effective().map(|write| operation(write, keys, leases));
    let compares = |some: &[(Key, Expect)]| -> Vec<_> {
        some.iter().map(|(key, expect)| compare(key, *expect, keys)).collect()
    };
    if commit.expect.len() <= WIDTH {
        return TxnRequest {
            compare: compares(&commit.expect),
            success: nest(writes.collect()),
            failure: look(commit, keys),
        };
    }
    // An inner transaction can't call off the outer one by its comparisons, but by an impossible operation.
    let checks = commit.expect.chunks(WIDTH).enumerate().map(|(n, some)| {
        let impossible = PutRequest { key: keys.nothing(n), ignore_value: true, ..PutRequest::default() };
        let failure = vec![RequestOp { request: Some(Request::RequestPut(impossible)) }];
        let check = TxnRequest { compare: compares(some), success: vec![], failure };
        RequestOp { request: Some(Request::RequestTxn(check)) }
    });
    TxnRequest { success: nest(checks.chain(writes).collect()), ..TxnRequest::default() }
}

/// Whether a refused transaction may have been refused for its impossible operation: nothing was done then.
pub(super) fn may_be_called_off(commit: &Commit, status: &Status) -> bool {
    commit.expect.len() > WIDTH && status.code() == Code::InvalidArgument
}

/// Reads every key of which something is expected.
pub(super) fn look(commit: &Commit, keys: &Keys) -> Vec<RequestOp> {
    let read = |(key, _): &(Key, Expect)| {
        let range = RangeRequest { key: keys.of(key), keys_only: true, ..RangeRequest::default() };
        RequestOp { request: Some(Request::RequestRange(range)) }
    };
    nest(commit.expect.iter().map(read).collect())
}

/// The first key whose expectation fails, by the answers to [`look`].
pub(super) fn culprit<'a>(commit: &'a Commit, responses: &[ResponseOp]) -> Option<&'a Key> {
    let mut found = vec![];
    flatten(responses, &mut found);
    let holds = |expect: Expect, modified: u64| match expect {
        Expect::Absent => modified == 0,
        Expect::Present => modified != 0,
        Expect::At(revision) => modified == revision,
    };
    let mut pairs = commit.expect.iter().zip(found);
    pairs.find(|((_, expect), modified)| !holds(*expect, *modified)).map(|((key, _), _)| key)
}

fn operation(write: &Write, keys: &Keys, leases: &BTreeMap<u64, i64>) -> RequestOp {
    let key = keys.of(write.key());
    RequestOp {
        request: Some(match write {
            Write::Put { value, ttl, .. } => Request::RequestPut(PutRequest {
                key,
                value: value.as_bytes().to_vec().into(),
                lease: ttl.and_then(|ttl| leases.get(&ttl).copied()).unwrap_or(0),
                ..PutRequest::default()
            }),
            Write::Delete { .. } => {
                Request::RequestDeleteRange(DeleteRangeRequest { key, ..DeleteRangeRequest::default() })
            }
        }),
    }
}

/// To etcd, what is absent was created and modified at revision 0.
fn compare(key: &Key, expect: Expect, keys: &Keys) -> Compare {
    let (result, target, union) = match expect {
        Expect::Absent => (CompareResult::Equal, CompareTarget::Create, TargetUnion::CreateRevision(0)),
        Expect::Present => (CompareResult::Greater, CompareTarget::Create, TargetUnion::CreateRevision(0)),
        Expect::At(revision) => {
            (CompareResult::Equal, CompareTarget::Mod, TargetUnion::ModRevision(signed(revision)))
        }
    };
    Compare {
        result: result.into(),
        target: target.into(),
        key: keys.of(key),
        target_union: Some(union),
        ..Compare::default()
    }
}

/// Puts operations into transactions of their own until no level has more than [`WIDTH`].
fn nest(mut operations: Vec<RequestOp>) -> Vec<RequestOp> {
    while operations.len() > WIDTH {
        let mut rest = operations.into_iter().peekable();
        let mut outer = vec![];
        while rest.peek().is_some() {
            let inner = TxnRequest { success: rest.by_ref().take(WIDTH).collect(), ..TxnRequest::default() };
            outer.push(RequestOp { request: Some(Request::RequestTxn(inner)) });
        }
        operations = outer;
    }
    operations
}

/// When each key that was read was last written; 0 if it is absent.
fn flatten(responses: &[ResponseOp], into: &mut Vec<u64>) {
    for response in responses {
        match &response.response {
            Some(Response::ResponseRange(range)) => {
                into.push(range.kvs.first().map_or(0, |kv| unsigned(kv.mod_revision)));
            }
            Some(Response::ResponseTxn(inner)) => flatten(&inner.responses, into),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::Kind;

    #[test]
    fn no_level_is_wider_than_etcd_takes_and_the_order_is_kept() {
        fn walk(operations: &[RequestOp], depth: usize, keys: &mut Vec<String>) {
            assert!(operations.len() <= WIDTH && depth <= 3);
            for operation in operations {
                match operation.request.as_ref().unwrap() {
                    Request::RequestTxn(inner) => walk(&inner.success, depth + 1, keys),
                    Request::RequestPut(put) => keys.push(String::from_utf8(put.key.to_vec()).unwrap()),
                    other => panic!("{other:?}"),
                }
            }
        }
        for count in [0, 1, WIDTH, WIDTH + 1, WIDTH * WIDTH + 1, 5000] {
            let keys: Vec<Key> = (0..count).map(|n| Key::new(Kind::Routes, n.to_string())).collect();
            let put = |key: &Key| Write::Put { key: key.clone(), value: "".into(), ttl: None };
            let commit = Commit { expect: vec![], writes: keys.iter().map(put).collect() };
            let mut walked = vec![];
            walk(&request(&commit, &Keys::new("/p"), &BTreeMap::new()).success, 1, &mut walked);
            assert_eq!(walked, keys.iter().map(|key| format!("/p/{key}")).collect::<Vec<_>>());
        }
    }
}
