// Connection options of an entry `type: postgres` under `backends:`.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>

#include "backends/client/options.h"
#include "config/schema.h"
#include "config/secret.h"

namespace prism::postgres {

enum class Isolation : std::uint8_t { read_committed, repeatable_read, serializable };

// Where the server is, and who logs in.
struct Options {
  std::optional<std::string> host, database, schema, login_user;
  std::optional<std::uint16_t> port;
  std::optional<config::Secret> login_password;
  std::optional<client::TlsOptions> tls;
  std::string application_name = "prism";
  client::PoolOptions pool;             // of connections that one caller has for itself
  std::uint32_t point_connections = 2;  // that all callers share
  client::TimeoutOptions timeouts;
  std::chrono::milliseconds lock_timeout{5'000};
  Isolation isolation = Isolation::read_committed;
  client::RetryOptions retry;
  client::BreakerOptions breaker;

  std::string address() const;  // "db.example.com:5432", "/run/postgresql:5432"; for errors and descriptions
};

const config::Schema<Options>& options_schema();

}  // namespace prism::postgres
