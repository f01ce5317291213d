// What an S3 server says, as errors of Prism.
// https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html
#pragma once

#include <string>
#include <string_view>

#include "backends/client/errors.h"
#include "backends/s3/http.h"

namespace prism::s3 {

// An answer that is no success, taken apart.
struct Refusal {
  int status = 0;
  std::string code;     // "NoSuchKey"; made from the status where the answer has no body (HEAD)
  std::string message;  // the server's words, on one line and cut
  std::string region;   // of the bucket, where the server tells it
};
Refusal refusal_of(const HttpHead& head, std::string_view body);

// What was asked for, as messages name it.
struct Asked {
  const client::Peer& peer;
  std::string_view bucket;
  std::string_view key;  // empty: the bucket itself
};
// retry: safe where the server says that it did nothing and may be asked again; unknown_outcome where a failure inside
// of the server (5xx) leaves open what has happened.
Error error_of(const Refusal& refusal, const Asked& asked);

}  // namespace prism::s3
