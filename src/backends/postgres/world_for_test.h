// A schema of its own on the test's server, for one test, and clients on it.
#pragma once

#include <cstdlib>
#include <memory>
#include <regex>
#include <stdexcept>
#include <string>

#include "backends/postgres/client.h"
#include "backends/postgres/key_value_store.h"
#include "backends/postgres/lease.h"
#include "backends/postgres/sql_database.h"
#include "base/ids.h"
#include "runtime/scope.h"

namespace prism::postgres {

template <class T>
T must(Result<T> result) {
  if (!result) throw std::runtime_error(result.error().describe());
  if constexpr (!std::is_void_v<T>) return std::move(*result);
}

// "postgresql://user@host:port/database"
inline Options options_of(const char* variable) {
  const char* const text = std::getenv(variable);
  if (text == nullptr) throw std::runtime_error(std::string(variable) + " is not set: scripts/servers env");
  std::cmatch m;
  static const std::regex url("postgresql://([^:@]+)(:([^@]+))?@([^:]+):([0-9]+)/(.+)");
  if (!std::regex_match(text, m, url)) throw std::runtime_error(std::string(variable) + " is no URL");
  Options out;
  out.login_user = m[1];
  if (m[3].matched) out.login_password = config::Secret(m[3]);
  out.host = m[4];
  out.port = static_cast<std::uint16_t>(std::stoi(m[5]));
  out.database = m[6];
  return out;
}

struct TestClient {
  TestClient(Runtime& runtime, Options options)
      : client(Client::make(runtime, "test-db", std::move(options))),
        database(make_sql_database(client)),
        store(make_key_value_store(client)),
        lease(make_lease(client)) {}
  ~TestClient() { run_blocking(client->close(Context())); }
  std::shared_ptr<Client> client;
  std::shared_ptr<SqlDatabase> database;
  std::shared_ptr<KeyValueStore> store;
  std::shared_ptr<Lease> lease;
};

// Two clients, as two processes would have them.
class World {
 public:
  explicit World(Options options = options_of("PRISM_TEST_POSTGRES"))
      : schema("t_" + to_hex(random_id()).substr(0, 16)), options(std::move(options)), admin_(runtime, this->options) {
    admin("CREATE SCHEMA " + schema);
    this->options.schema = schema;
    restart();
  }
  ~World() {
    second_.reset();
    first_.reset();
    admin("DROP SCHEMA IF EXISTS " + schema + " CASCADE");
  }
  void restart() {
    second_.reset();
    first_.reset();
    first_ = std::make_unique<TestClient>(runtime, options);
    second_ = std::make_unique<TestClient>(runtime, options);
    must(run_blocking(first_->client->check(Context())));
  }
  TestClient& first() { return *first_; }
  TestClient& second() { return *second_; }
  void admin(const std::string& sql) { must(run_blocking(admin_.database->create_from_ddl(Context(), sql))); }
  std::int64_t admin_number(std::string sql) {
    return std::get<std::int64_t>(
        must(run_blocking(admin_.database->query(Context(), {std::move(sql), {}}, 10))).rows.at(0).at(0));
  }

  Runtime runtime;
  std::string schema;
  Options options;

 private:
  TestClient admin_;
  std::unique_ptr<TestClient> first_, second_;
};

}  // namespace prism::postgres
