#include "backends/postgres/client.h"
#include "backends/postgres/key_value_store.h"
#include "backends/postgres/lease.h"
#include "backends/postgres/libpq.h"
#include "backends/postgres/sql_database.h"
#include "capabilities/backend.h"

namespace prism::postgres {
namespace {

class Server final : public Backend {
 public:
  explicit Server(std::shared_ptr<Client> client)
      : client_(std::move(client)),
        sql_(make_sql_database(client_)),
        key_value_(make_key_value_store(client_)),
        lease_(make_lease(client_)) {}

  std::shared_ptr<SqlDatabase> sql() override { return sql_; }
  std::shared_ptr<KeyValueStore> key_value() override { return key_value_; }
  std::shared_ptr<Lease> lease() override { return lease_; }
  Task<Result<void>> check(Context context) override { return client_->check(std::move(context)); }
  std::optional<ConnectionUse> connections() const override { return client_->use(); }
  std::string describe() const override {
    const auto& options = client_->options();
    return "PostgreSQL (" + options.address() + (options.database ? "/" + *options.database : "") + ")";
  }
  Task<void> close(Context context) override { return client_->close(std::move(context)); }

 private:
  std::shared_ptr<Client> client_;
  std::shared_ptr<SqlDatabase> sql_;
  std::shared_ptr<KeyValueStore> key_value_;
  std::shared_ptr<Lease> lease_;
};

Task<Result<std::unique_ptr<Backend>>> connect(Context /*context*/, Runtime& runtime, std::string name,
                                               config::Node node) {
  PRISM_CO_TRY(auto options, options_schema().parse(node));
  auto loaded = co_await offload(runtime.files(), runtime.next_loop(), load_libpq);
  if (!loaded) co_return std::unexpected(std::move(loaded).error());
  co_return std::unique_ptr<Backend>(new Server(Client::make(runtime, std::move(name), std::move(options))));
}

}  // namespace

std::vector<BackendType> backend_types() {
  return {{
      .name = "postgres",
      .aliases = {"postgresql"},
      .capabilities = {"key-value-store", "sql-database", "lease"},
      .summary = "PostgreSQL",
      .log = {},
      .validate = options_schema().validator(),
      .options = options_schema().shared_info(),
      .connect = connect,
      .embed = nullptr,
      .survival =
          [](const Deployment& /*deployment*/) {
            return Survival{.process_kill = Survives::yes,
                            .power_loss = Survives::yes,
                            .disk_loss = Survives::depends,
                            .site_power_loss = Survives::yes,
                            .why =
                                "a commit is synced to the write-ahead log (fsync and synchronous_commit on, their "
                                "defaults); a lost disk needs a synchronous standby"};
          },
  }};
}

}  // namespace prism::postgres
