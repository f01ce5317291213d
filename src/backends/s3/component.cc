#include <map>
#include <mutex>

#include "backends/client/object_key_values.h"
#include "backends/s3/libcurl.h"
#include "backends/s3/object_store.h"
#include "backends/s3/options.h"
#include "capabilities/backend.h"
#include "runtime/loop.h"

namespace prism::s3 {
namespace {

class S3Backend final : public Backend {
 public:
  S3Backend(Runtime& runtime, Options options, std::string name)
      : runtime_(runtime), client_(std::make_shared<Client>(runtime, std::move(options), std::move(name))) {}

  Result<std::shared_ptr<prism::ObjectStore>> objects(const std::string& bucket) override {
    PRISM_CHECK(check_bucket(bucket));
    const std::lock_guard lock(mutex_);
    return in(bucket);
  }

  std::shared_ptr<KeyValueStore> key_value() override {
    const std::lock_guard lock(mutex_);
    const auto& options = client_->options().key_value;
    if (values_ == nullptr && options) {
      const auto store = in(options->bucket);
      values_ = client::make_object_key_values(
          {.objects = store,
           .prefix = options->prefix,
           .remove_if = [store](Context context, std::string key, std::string etag) {
             return store->remove_if(std::move(context), std::move(key), std::move(etag));
           }});
    }
    return values_;
  }

  Task<Result<void>> check(Context context) override {
    std::vector<std::shared_ptr<ObjectStore>> stores;
    {
      const std::lock_guard lock(mutex_);
      for (const auto& [name, store] : buckets_) stores.push_back(store);
    }
    if (stores.empty()) co_return co_await client_->check(std::move(context), {});
    for (const auto& store : stores) PRISM_CO_CHECK(co_await store->check(context));
    co_return Result<void>();
  }

  std::optional<ConnectionUse> connections() const override { return client_->use(); }
  std::string describe() const override { return "s3 (" + client_->peer().address + ")"; }

  Task<void> close(Context context) override {
    for (auto& [name, store] : buckets_) co_await store->close(context);
    co_await client_->close();
  }

 private:
  std::shared_ptr<ObjectStore> in(const std::string& bucket) {  // under mutex_
    auto& store = buckets_[bucket];
    if (store == nullptr) store = std::make_shared<ObjectStore>(client_, bucket, runtime_.budget());
    return store;
  }

  Runtime& runtime_;
  const std::shared_ptr<Client> client_;
  std::mutex mutex_;
  std::map<std::string, std::shared_ptr<ObjectStore>> buckets_;  // guarded by mutex_
  std::shared_ptr<KeyValueStore> values_;                        // guarded by mutex_; null: not asked for yet
};

Task<Result<std::unique_ptr<Backend>>> connect(Context /*context*/, Runtime& runtime, std::string name,
                                               config::Node options) {
  PRISM_CO_TRY(auto parsed, options_schema().parse(options));
  auto loaded = co_await offload(runtime.files(), runtime.next_loop(), load_libcurl);
  if (!loaded) co_return std::unexpected(std::move(loaded).error());
  co_return std::make_unique<S3Backend>(runtime, std::move(parsed), std::move(name));
}

Survival survival(const Deployment& deployment) {
  Survival out = Survival::everything();
  out.why = "S3 answers when several zones have the object";
  if (deployment.options.find("endpoint") != nullptr) {
    out.disk_loss = Survives::depends;
    out.why =
        "the store behind this endpoint answers when it has the object synced; what it survives depends on its copies "
        "and parity";
  }
  return out;
}

}  // namespace

std::vector<BackendType> backend_types() {
  return {{.name = "s3",
           .aliases = {"minio"},
           .capabilities = {"object-store", "key-value-store"},
           .summary = "S3 and what speaks its protocol",
           .max_object_bytes = 5ULL << 40,
           .validate = options_schema().validator(),
           .options = options_schema().shared_info(),
           .connect = connect,
           .embed = nullptr,
           .survival = survival}};
}

}  // namespace prism::s3
