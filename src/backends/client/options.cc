#include "backends/client/options.h"

namespace prism::client {

using namespace config;
using namespace std::chrono_literals;

const Schema<TlsOptions>& tls_schema() {
  static const auto schema =
      Schema<TlsOptions>("tls", "Encryption of the connection.")
          .field(&TlsOptions::enabled, "enabled", Bool{}, "false: in the clear.")
          .default_("true")
          .field(&TlsOptions::verify, "verify", Bool{},
                 "false: any certificate is taken, so that somebody in between could read everything; for tests.")
          .default_("true")
          .field(&TlsOptions::ca_file, "ca_file", Text{},
                 "Certificates of the authorities that are trusted, PEM; without it the system's.")
          .field(&TlsOptions::cert_file, "cert_file", Text{}, "This client's certificate, PEM.")
          .field(&TlsOptions::key_file, "key_file", Text{}, "Its private key, PEM.")
          .field(&TlsOptions::server_name, "server_name",
                 Text{.pattern = "[A-Za-z0-9._:-]{1,253}", .expects = "a host's name or address"},
                 "The name that the server's certificate is for; without it the host of its address.")
          .check({"cert_file", "key_file"}, [](const TlsOptions& tls, const Node& map, Diagnostics& diagnostics) {
            if (tls.cert_file.has_value() == tls.key_file.has_value()) return;
            const std::string given = tls.cert_file ? "cert_file" : "key_file";
            const std::string other = tls.cert_file ? "key_file" : "cert_file";
            diagnostics.error(*map.find(given), "MISSING_OPTION",
                              "'" + given + "' is of no use without '" + other + "'", "give both, or neither");
          });
  return schema;
}

const Schema<RetryOptions>& retry_schema() {
  static const auto schema =
      Schema<RetryOptions>("retry", "Repetition of operations that have failed without having done anything.")
          .field(&RetryOptions::attempts, "attempts", Int{.min = 1, .max = 20},
                 "How often an operation is tried, within the request's deadline; 1: once.")
          .default_("3")
          .field(&RetryOptions::backoff, "backoff", Duration{.min = 1ms, .max = 1min},
                 "Wait before the second try; later waits double, each with jitter.")
          .default_("50ms")
          .field(&RetryOptions::max_backoff, "max_backoff", Duration{.min = 1ms, .max = 10min}, "The longest wait.")
          .default_("1s");
  return schema;
}

const Schema<PoolOptions>& pool_schema() {
  static const auto schema =
      Schema<PoolOptions>("pool", "Connections of this process to the server.")
          .field(&PoolOptions::connections, "connections", Int{.min = 1, .max = 1'000}, "How many at most.")
          .default_("8")
          .field(&PoolOptions::queue, "queue", Int{.min = 0, .max = 1'000'000},
                 "Operations that may wait for a connection; further ones are refused (BACKEND_OVERLOADED).")
          .default_("1000")
          .field(&PoolOptions::wait, "wait", Duration{.min = 1ms, .max = 10min}, "How long each may wait.")
          .default_("5s");
  return schema;
}

const Schema<TimeoutOptions>& timeout_schema() {
  static const auto schema =
      Schema<TimeoutOptions>("timeouts", "How long the server may take.")
          .field(&TimeoutOptions::connect, "connect", Duration{.min = 10ms, .max = 10min},
                 "Until a connection can be used, encryption and log-in included.")
          .default_("5s")
          .field(&TimeoutOptions::operation, "operation", Duration{.min = 10ms, .max = 1h},
                 "Until an operation is answered; an earlier deadline of the request counts first.")
          .default_("30s");
  return schema;
}

const Schema<BreakerOptions>& breaker_schema() {
  static const auto schema =
      Schema<BreakerOptions>("breaker", "When a server that does not answer is left alone, and for how long.")
          .field(&BreakerOptions::failures, "failures", Int{.min = 1, .max = 10'000},
                 "Failures in a row after which operations are refused at once.")
          .default_("5")
          .field(&BreakerOptions::pause, "pause", Duration{.min = 1ms, .max = 10min},
                 "Until one operation is let through again, to try; later pauses double, each with jitter.")
          .default_("500ms")
          .field(&BreakerOptions::max_pause, "max_pause", Duration{.min = 1ms, .max = 1h}, "The longest pause.")
          .default_("10s");
  return schema;
}

}  // namespace prism::client
