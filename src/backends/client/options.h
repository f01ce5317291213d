// Options that connectors have in common, each with its schema, to be nested in a connector's own:
//
//   struct Options { std::optional<client::TlsOptions> tls; client::RetryOptions retry; client::PoolOptions pool; };
//   Schema<Options>("redis", "...")
//       .field(&Options::tls, "tls", Nested{client::tls_schema()}.shorthand("enabled"), "Encryption of the
//       connection.") .field(&Options::retry, "retry", Nested{client::retry_schema()}.shorthand("attempts"), "...")
//
// Take only what the connector obeys. Absent ones get their defaults (a std::optional stays nullopt).
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>

#include "config/schema.h"

namespace prism::client {

// A connector encrypts where `tls` is given and enabled; its files are read when it connects.
struct TlsOptions {
  bool enabled = true;
  bool verify = true;                              // false: any certificate is taken; never the default
  std::optional<std::string> ca_file;              // PEM; nullopt: the system's authorities
  std::optional<std::string> cert_file, key_file;  // PEM; both or neither
  std::optional<std::string> server_name;          // that the certificate is for; nullopt: the address's host
};
const config::Schema<TlsOptions>& tls_schema();
inline bool uses_tls(const std::optional<TlsOptions>& tls) noexcept { return tls && tls->enabled; }

// How often an operation is tried of which it is known that nothing has happened; see retry_safe().
struct RetryOptions {
  std::uint32_t attempts = 3;  // the first one included; 1: no repetition
  std::chrono::milliseconds backoff{50};
  std::chrono::milliseconds max_backoff{1'000};
};
const config::Schema<RetryOptions>& retry_schema();

// Connections of one process to one backend.
struct PoolOptions {
  std::uint32_t connections = 8;          // at most
  std::uint32_t queue = 1'000;            // operations that wait for one; further ones get BACKEND_OVERLOADED
  std::chrono::milliseconds wait{5'000};  // after which a waiting one gets BACKEND_OVERLOADED
};
const config::Schema<PoolOptions>& pool_schema();

struct TimeoutOptions {
  std::chrono::milliseconds connect{5'000};     // until a connection can be used, TLS and log-in included
  std::chrono::milliseconds operation{30'000};  // of an operation; a request's earlier deadline counts first
};
const config::Schema<TimeoutOptions>& timeout_schema();

// See Breaker.
struct BreakerOptions {
  std::uint32_t failures = 5;                   // in a row
  std::chrono::milliseconds pause{500};         // before the first try
  std::chrono::milliseconds max_pause{10'000};  // later ones come at least this often
};
const config::Schema<BreakerOptions>& breaker_schema();

// For Schema::check({"user", "password"}, check_login<Options>) with members `login_user` and `login_password`, both
// std::optional: a password needs a name.
template <class T>
void check_login(const T& options, const config::Node& map, config::Diagnostics& diagnostics) {
  if (!options.login_password || options.login_user) return;
  diagnostics.error(*map.find("password"), "MISSING_OPTION", "'password' is of no use without 'user'", "give both");
}

}  // namespace prism::client
