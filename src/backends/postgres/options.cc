#include "backends/postgres/options.h"

namespace prism::postgres {

using namespace config;
using namespace std::chrono_literals;

std::string Options::address() const { return host.value_or("localhost") + ":" + std::to_string(port.value_or(5432)); }

const Schema<Options>& options_schema() {
  static const auto schema =
      Schema<Options>("postgres", "Connection to PostgreSQL 12 or newer.")
          .field(&Options::host, "host",
                 Text{.pattern = "[A-Za-z0-9._:/-]{1,253}", .expects = "a host's name or address"},
                 "The server, or the folder of its socket; without it localhost.")
          .example("db.example.com")
          .field(&Options::port, "port", Int{.min = 1, .max = 65'535}, "Its port; without it 5432.")
          .field(&Options::database, "database", Text{.pattern = "[^/\\s]{1,63}", .expects = "the name of a database"},
                 "The database; without it the one of the user's name.")
          .field(&Options::schema, "schema", SqlIdentifier{},
                 "The schema in which tables are looked for and made; without it the user's search path decides.")
          .field(&Options::login_user, "user", Text{}, "Name to log in with; without it the one that Prism runs as.")
          .field(&Options::login_password, "password", SecretText{}, "Its password.")
          .field(&Options::tls, "tls", Nested{client::tls_schema()}.shorthand("enabled"),
                 "Encryption of the connection. `true` checks the server's certificate against the system's "
                 "authorities.")
          .field(&Options::application_name, "application_name",
                 Text{.pattern = "[ -~]{1,63}", .expects = "at most 63 printable ASCII characters"},
                 "What pg_stat_activity shows of these connections.")
          .default_("prism")
          .field(&Options::pool, "pool", Nested{client::pool_schema()}.shorthand("connections"),
                 "Connections for transactions and queries, each of one at a time.")
          .field(&Options::point_connections, "point_connections", Int{.min = 1, .max = 64},
                 "Connections for short statements, shared by all: what has come while one is busy goes out together, "
                 "with one commit.")
          .default_("2")
          .field(&Options::timeouts, "timeouts", Nested{client::timeout_schema()}.shorthand("operation"),
                 "How long the server may take; `operation` is also its statement_timeout.")
          .field(&Options::lock_timeout, "lock_timeout", Duration{.min = 1ms, .max = 1h},
                 "How long a statement may wait for a lock.")
          .default_("5s")
          .field(&Options::isolation, "isolation",
                 Enum<Isolation>{{{"read-committed", Isolation::read_committed},
                                  {"repeatable-read", Isolation::repeatable_read},
                                  {"serializable", Isolation::serializable}}},
                 "Isolation of transactions that write.")
          .default_("read-committed")
          .field(&Options::retry, "retry", Nested{client::retry_schema()}.shorthand("attempts"),
                 "Repetition of statements and transactions that have failed without having done anything: "
                 "serialization failures, deadlocks, connections that could not be made.")
          .field(&Options::breaker, "breaker", Nested{client::breaker_schema()}.shorthand("failures"),
                 "When a server that takes no connections is left alone, and for how long.")
          .check({"user", "password"}, client::check_login<Options>);
  return schema;
}

}  // namespace prism::postgres
