#include <algorithm>

#include "backends/sqlite/engine.h"
#include "backends/sqlite/event_log.h"
#include "backends/sqlite/key_value_store.h"
#include "backends/sqlite/lease.h"
#include "backends/sqlite/server_options.h"
#include "backends/sqlite/sql_database.h"
#include "backends/sqlite/survival.h"
#include "capabilities/backend.h"
#include "config/schema.h"

namespace prism::sqlite {
namespace {

// Which of the file's capabilities a twin shows: those of the engine that it stands for, so that what runs embedded
// runs there.
struct Shows {
  bool event_log = false;
  bool key_value = false;
  bool sql = false;
  bool lease = false;
};

constexpr Shows kAll{.event_log = true, .key_value = true, .sql = true, .lease = true};

class FileBackend final : public Backend {
 public:
  static Task<Result<std::unique_ptr<Backend>>> open(Context context, Runtime& runtime, std::string path, Shows shows) {
    std::unique_ptr<FileBackend> backend(new FileBackend());
    PRISM_CO_TRY(backend->engine_, co_await Engine::open(runtime, path));
    if (shows.event_log) {
      PRISM_CO_TRY(backend->event_log_, co_await open_event_log(backend->engine_));
    }
    if (shows.key_value) {
      PRISM_CO_TRY(backend->key_value_, co_await open_key_value_store(context, backend->engine_));
    }
    if (shows.sql) {
      PRISM_CO_TRY(backend->sql_, co_await open_sql_database(context, backend->engine_));
    }
    if (shows.lease) {
      PRISM_CO_TRY(backend->lease_, co_await open_lease(context, backend->engine_));
    }
    co_return backend;
  }

  std::shared_ptr<EventLog> event_log() override { return event_log_; }
  std::shared_ptr<KeyValueStore> key_value() override { return key_value_; }
  std::shared_ptr<SqlDatabase> sql() override { return sql_; }
  std::shared_ptr<Lease> lease() override { return lease_; }
  std::string_view embedded() const override { return "sqlite"; }
  std::string describe() const override { return "SQLite (" + engine_->path() + "), one copy, synced to disk"; }
  Task<void> close(Context context) override {
    if (event_log_ != nullptr) co_await event_log_->close(context);
    if (key_value_ != nullptr) co_await key_value_->close(context);
    if (sql_ != nullptr) co_await sql_->close(context);
    co_await engine_->close();
  }

 private:
  FileBackend() = default;
  std::shared_ptr<Engine> engine_;
  std::shared_ptr<EventLog> event_log_;
  std::shared_ptr<KeyValueStore> key_value_;
  std::shared_ptr<SqlDatabase> sql_;
  std::shared_ptr<Lease> lease_;
};

struct Connection {
  std::string path;
};

const config::Schema<Connection>& connection_schema() {
  static const auto schema =
      config::Schema<Connection>("sqlite", "Everything in one SQLite file.")
          .field(&Connection::path, "path", config::Text{}, "The file; it is made when it is missing.")
          .required();
  return schema;
}

Task<Result<std::unique_ptr<Backend>>> connect(Context context, Runtime& runtime, std::string /*name*/,
                                               config::Node options) {
  PRISM_CO_TRY(const auto connection, connection_schema().parse(options));
  co_return co_await FileBackend::open(std::move(context), runtime, connection.path, kAll);
}

BackendType twin(std::string_view name, std::vector<std::string_view> aliases, std::string_view summary, Shows shows,
                 std::optional<LogLimits> limits) {
  std::vector<std::string_view> capabilities;
  if (shows.event_log) capabilities.emplace_back("event-log");
  if (shows.key_value) capabilities.emplace_back("key-value-store");
  if (shows.sql) capabilities.emplace_back("sql-database");
  if (shows.lease) capabilities.emplace_back("lease");
  return {
      .name = name,
      .aliases = std::move(aliases),
      .capabilities = std::move(capabilities),
      .summary = summary,
      .log = limits,
      .validate = name == "sqlite" ? connection_schema().validator() : server_options(name).validate,
      .options = name == "sqlite" ? connection_schema().shared_info() : server_options(name).info,
      .connect = nullptr,
      .embed =
          [shows](Context context, Runtime& runtime, std::string backend, std::string directory) {
            return FileBackend::open(std::move(context), runtime, directory + "/" + backend + ".db", shows);
          },
      .survival = [name](const Deployment& deployment) { return survival(name, deployment); },
  };
}

}  // namespace

std::vector<BackendType> backend_types() {
  std::vector<BackendType> types;
  types.push_back(
      twin("sqlite", {}, "logs, keys, tables and leases in one file; the embedded twin of the engines below", kAll,
           LogLimits{.max_record_bytes = EventLogOptions().max_record_bytes, .retention = {}, .setting = {}}));
  types.back().connect = connect;
  types.push_back(twin("kafka", {}, {}, {.event_log = true}, {}));
  types.push_back(twin("nats", {"nats-jetstream"}, "NATS JetStream", {.event_log = true, .lease = true},
                       LogLimits{.max_record_bytes = 1U << 20, .retention = {}, .setting = "max_payload"}));
  types.push_back(twin("postgres", {}, {}, {.key_value = true, .sql = true, .lease = true}, {}));
  types.push_back(twin("redis", {"valkey"}, "Redis", {.event_log = true, .key_value = true, .lease = true}, {}));
  return types;
}

}  // namespace prism::sqlite
