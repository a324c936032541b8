//! A commit as an etcd transaction.
//!
//! The rule to know: one commit is one transaction, whatever its size. etcd limits the operations at one level
//! (`--max-txn-ops`, 128), not in all, so larger ones are nested.

use std::collections::BTreeMap;

use model::Key;

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

/// Operations at one level. Three levels of it and the comparisons stay below etcd's 128.
const WIDTH: usize = 40;

/// The transaction that does `commit`, with the lease of each ttl; where an expectation fails it reads what is there.
pub(super) fn request(commit: &Commit, keys: &Keys, leases: &BTreeMap<u64, i64>) -> TxnRequest {
    let success = commit.effective().map(|write| operation(write, keys, leases)).collect();
    let look = |(key, _): &(Key, Expect)| {
        let read = RangeRequest { key: keys.of(key), keys_only: true, ..RangeRequest::default() };
        RequestOp { request: Some(Request::RequestRange(read)) }
    };
    TxnRequest {
        compare: commit.expect.iter().map(|(key, expect)| compare(key, *expect, keys)).collect(),
        success: nest(success),
        failure: nest(commit.expect.iter().map(look).collect()),
    }
}

/// The key whose expectation failed, by what a refused transaction has read.
pub(super) fn culprit(commit: &Commit, responses: &[ResponseOp]) -> Option<Key> {
    let mut found = vec![];
    flatten(responses, &mut found);
    let broken = |(expect, modified): (&Expect, &u64)| match expect {
        Expect::Absent => *modified != 0,
        Expect::Present => *modified == 0,
        Expect::At(revision) => modified != revision,
    };
    let mut pairs = commit.expect.iter().zip(&found);
    pairs.find(|((_, expect), modified)| broken((expect, modified))).map(|((key, _), _)| key.clone())
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
