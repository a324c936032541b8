//! AWS Secrets Manager: `GetSecretValue`, signed by Signature Version 4.
//!
//! <https://docs.aws.amazon.com/secretsmanager/latest/apireference/API_GetSecretValue.html>

use http::header::CONTENT_TYPE;
use object_store::{
    aws::{AwsAuthorizer, AwsCredential},
    client::HttpRequestBody,
};
use serde_json::{Value, json};

use super::{Answer, Asker, Failure, Secret, below};
use crate::secrets::manager::Aws;

impl Asker {
    pub(super) async fn aws(&self, aws: &Aws, name: &str) -> Result<Secret, Failure> {
        let url = below(&aws.endpoint(), &[])?;
        let body = json!({"SecretId": name, "VersionStage": "AWSCURRENT"}).to_string();
        let mut request = http::Request::post(url.as_str())
            .header(CONTENT_TYPE, "application/x-amz-json-1.1")
            .header("X-Amz-Target", "secretsmanager.GetSecretValue")
            .body(HttpRequestBody::from(body.clone()))
            .map_err(|_| Failure::Refused(format!("{url} is no address")))?;
        let credential = AwsCredential {
            key_id: aws.access_key_id.clone(),
            secret_key: aws.secret_access_key.reveal().to_owned(),
            token: aws.session_token.as_ref().map(|token| token.reveal().to_owned()),
        };
        AwsAuthorizer::new(&credential, "secretsmanager", aws.region())
            .try_authorize(&mut request, None)
            .map_err(|_| Failure::Refused("the request can't be signed".to_owned()))?;
        let signed = self.client.post(url.as_str()).headers(request.headers().clone()).body(body);
        let answer = Answer::to(signed).await?;
        if answer.status == 200 {
            return match answer.json()?["SecretString"].take() {
                Value::String(text) => Ok(Secret::Text(text)),
                _ => Err(Failure::Refused("it is binary, not a text".to_owned())),
            };
        }
        // Only the type: the message repeats what was signed.
        match answer.failure(|body| Some(body["__type"].as_str()?.rsplit('#').next()?.to_owned())) {
            Failure::Refused(told) if told.ends_with("ResourceNotFoundException") => Err(Failure::Missing),
            other => Err(other),
        }
    }
}
