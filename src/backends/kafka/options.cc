#include "backends/kafka/options.h"

namespace prism::kafka {

using namespace config;
using namespace std::chrono_literals;

const Schema<Options>& options_schema() {
  static const auto schema =
      Schema<Options>("kafka", "Connection to Apache Kafka.")
          .field(&Options::brokers, "brokers", ListOf<Address>{.element = {.need_host = true}, .min = 1, .max = 100},
                 "Addresses of brokers to begin with; without it localhost:9092.")
          .example("[kafka-1:9092, kafka-2:9092]")
          .field(&Options::login_user, "user", Text{}, "Name to log in with (SASL).")
          .field(&Options::login_password, "password", SecretText{}, "Its password.")
          .field(&Options::mechanism, "mechanism",
                 Enum<Mechanism>{{{"PLAIN", Mechanism::plain},
                                  {"SCRAM-SHA-256", Mechanism::scram_sha_256},
                                  {"SCRAM-SHA-512", Mechanism::scram_sha_512}}},
                 "How the password is shown to the brokers. PLAIN sends it as it is: use it with `tls`.")
          .default_("PLAIN")
          .field(&Options::tls, "tls", Nested{client::tls_schema()}.shorthand("enabled"),
                 "Encryption of the connections.")
          .field(&Options::timeouts, "timeouts", Nested{client::timeout_schema()},
                 "How long the brokers may take; a record that is not acknowledged in the time of an operation fails.")
          .field(&Options::prefix, "prefix",
                 Text{.pattern = "[A-Za-z0-9._-]{0,100}",
                      .expects = "up to 100 letters, digits, '.', '_' and '-'",
                      .allow_empty = true},
                 "What the names of topics and consumer groups begin with at the brokers.")
          .default_("\"\"")
          .field(&Options::partitions, "partitions", Int{.min = 0, .max = 10'000},
                 "Partitions of a new topic whose namespace names no number; 0: the broker's default.")
          .default_("0")
          .field(&Options::replication, "replication", Int{.min = 0, .max = 100},
                 "Copies of a new topic whose namespace names no number; 0: the broker's default.")
          .default_("0")
          .field(&Options::compression, "compression",
                 Enum<Compression>{{{"none", Compression::none},
                                    {"gzip", Compression::gzip},
                                    {"snappy", Compression::snappy},
                                    {"lz4", Compression::lz4},
                                    {"zstd", Compression::zstd}}},
                 "Of records on their way to the brokers and in the log.")
          .default_("none")
          .field(&Options::linger, "linger", Duration{.min = 0ms, .max = 10s},
                 "How long a record waits for others to be sent with it. While a request is under way they gather "
                 "without it.")
          .default_("0ms")
          .field(&Options::batch_bytes, "batch_size", Size{.min = 1'024, .max = 16 << 20},
                 "Records that are sent together have at most this size.")
          .default_("512KiB")
          .field(&Options::buffer_bytes, "buffer_size", Size{.min = 1 << 20, .max = 1UL << 31},
                 "Records that wait to be sent, of this process; further ones are refused (LOG_FULL).")
          .default_("64MiB")
          .field(&Options::session_timeout, "session_timeout", Duration{.min = 1s, .max = 30min},
                 "A process that is not heard of for so long loses the partitions that it consumes.")
          .default_("10s")
          .field(&Options::heartbeat, "heartbeat", Duration{.min = 100ms, .max = 10min},
                 "How often a consumer is heard of; at most a third of `session_timeout`.")
          .default_("3s")
          .check({"user", "password"}, client::check_login<Options>)
          .check({"heartbeat", "session_timeout"},
                 [](const Options& options, const Node& map, Diagnostics& diagnostics) {
                   if (options.heartbeat * 3 <= options.session_timeout) return;
                   const Node* at = map.find("heartbeat");
                   if (at == nullptr) at = map.find("session_timeout");
                   diagnostics.error(*at, "CONTRADICTING_OPTIONS",
                                     "a consumer would be taken for dead when few of its heartbeats are late",
                                     "let `session_timeout` be three times `heartbeat` or more");
                 });
  return schema;
}

}  // namespace prism::kafka
