// Options of the s3 backend, declared once (options.cc).
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "backends/client/options.h"
#include "backends/s3/sigv4.h"
#include "config/schema.h"
#include "config/secret.h"

namespace prism::s3 {

struct KeyValueOptions {
  std::string bucket;
  std::string prefix = "prism-kv/";
};

struct Options {
  std::optional<std::string> endpoint;  // "https://host:9000"; nullopt: AWS's of the region
  std::optional<std::string> region;    // nullopt: the environment's, else us-east-1
  std::optional<std::string> access_key_id;
  std::optional<config::Secret> secret_access_key, session_token;
  std::optional<bool> path_style;  // nullopt: with an endpoint of its own
  bool create_bucket = false;
  bool sign_payload = false;
  std::uint64_t part_size = 8ULL << 20;
  std::uint32_t parallel_parts = 4;
  std::uint32_t abort_uploads_after = 0;  // days; 0: no rule
  std::optional<KeyValueOptions> key_value;
  std::optional<client::TlsOptions> tls;
  client::RetryOptions retry;
  client::PoolOptions pool{.connections = 64, .queue = 1'000, .wait = std::chrono::seconds(5)};
  client::TimeoutOptions timeouts;
  client::BreakerOptions breaker;
};

const config::Schema<Options>& options_schema();

// What the options leave open, taken from the environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN,
// AWS_REGION, AWS_DEFAULT_REGION). nullopt: there are no credentials.
std::optional<Credentials> credentials_of(const Options& options);
std::string region_of(const Options& options);

// A bucket's name: 3 to 63 lower-case letters, digits, '-' and '.', of which letters and digits stand first and last.
Result<void> check_bucket(std::string_view bucket);  // INVALID_BUCKET

// Where requests for a bucket go.
struct Location {
  std::string origin;  // "https://bucket.s3.eu-central-1.amazonaws.com"
  std::string host;    // as the Host header has it
  std::string path;    // before the key: "/" or "/bucket/"
};
class Endpoint {
 public:
  explicit Endpoint(const Options& options);
  Location of(const std::string& bucket) const;
  const std::string& address() const noexcept { return authority_; }  // "host:port" or "host"
  bool encrypted() const noexcept { return encrypted_; }
  // For curl, where the certificate is for another name than the address's: "::host:port".
  const std::string& connect_to() const noexcept { return connect_to_; }

 private:
  bool encrypted_ = true;
  bool path_style_ = false;
  std::string authority_;    // "host[:port]", without the scheme's own port
  std::string certificate_;  // "name[:port]" that the URL has in the authority's place; empty: the same
  std::string connect_to_;
};

}  // namespace prism::s3
