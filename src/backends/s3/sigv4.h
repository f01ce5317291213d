// Signature Version 4 of requests, as S3 has it: paths are encoded once and not normalised.
// https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html
#pragma once

#include <mutex>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/types.h"
#include "config/secret.h"

namespace prism::s3 {

// Names in lower case.
using HeaderList = std::vector<std::pair<std::string, std::string>>;
using Query = std::vector<std::pair<std::string, std::string>>;

struct Credentials {
  std::string access_key_id;
  config::Secret secret_access_key;
  config::Secret session_token;  // empty: none
};

// Everything but A-Z a-z 0-9 - . _ ~ becomes %XX; a '/' only where it is not kept.
std::string uri_encode(std::string_view text, bool keep_slashes);
// Encoded and sorted, as it is signed and sent; without the '?'.
std::string canonical_query(const Query& query);
std::string hex(std::string_view bytes);        // lower case
std::string sha256(std::string_view data);      // 32 bytes
std::string md5_base64(std::string_view data);  // for Content-MD5
inline constexpr std::string_view kUnsignedPayload = "UNSIGNED-PAYLOAD";

// Thread-safe.
class Signer {
 public:
  Signer(Credentials credentials, std::string region, std::string service = "s3");

  // `path` and `query` are encoded. All of `headers` are signed ("host" must be among them); adds "x-amz-date", perhaps
  // "x-amz-security-token", and "authorization". `payload`: what x-amz-content-sha256 says, if that is sent.
  void sign(std::string_view method, std::string_view path, std::string_view query, HeaderList& headers,
            std::string_view payload, WallTime now) const;

 private:
  std::string key_of(const std::string& day) const;

  const Credentials credentials_;
  const std::string region_, service_;
  mutable std::mutex mutex_;
  mutable std::string day_, key_;  // the last day's key; guarded by mutex_
};

}  // namespace prism::s3
