#include <map>
#include <mutex>

#include "backends/client/object_key_values.h"
#include "backends/filesystem/object_store.h"
#include "capabilities/backend.h"
#include "config/schema.h"
#include "runtime/loop.h"

namespace prism::filesystem {
namespace {

// A folder with a sub-folder for each bucket.
class FolderBackend final : public Backend {
 public:
  FolderBackend(Runtime& runtime, std::string root) : runtime_(runtime), root_(std::move(root)) {}

  Result<std::shared_ptr<prism::ObjectStore>> objects(const std::string& bucket) override {
    const std::lock_guard lock(mutex_);
    if (const auto it = buckets_.find(bucket); it != buckets_.end()) return it->second;
    PRISM_TRY(auto store, ObjectStore::open(runtime_, {.root = root_, .bucket = bucket}, runtime_.budget()));
    buckets_.emplace(bucket, store);
    return store;
  }
  std::shared_ptr<KeyValueStore> key_value() override {
    auto bucket = objects("prism-kv");
    if (!bucket) return nullptr;
    const std::lock_guard lock(mutex_);
    if (values_ == nullptr) values_ = client::make_object_key_values({.objects = std::move(*bucket)});
    return values_;
  }
  std::string_view embedded() const override { return "filesystem"; }
  std::string describe() const override { return "files (" + root_ + "/), one copy, synced to disk"; }
  Task<void> close(Context context) override {
    for (auto& [name, store] : buckets_) co_await store->close(context);
  }

 private:
  Runtime& runtime_;
  const std::string root_;
  std::mutex mutex_;
  std::map<std::string, std::shared_ptr<prism::ObjectStore>> buckets_;  // guarded by mutex_
  std::shared_ptr<KeyValueStore> values_;                               // guarded by mutex_; null: not asked for yet
};

struct Connection {
  std::string path;
};

const config::Schema<Connection>& connection_schema() {
  static const auto schema =
      config::Schema<Connection>("filesystem", "Objects as files of a folder.")
          .field(&Connection::path, "path", config::Text{}, "The folder; it is made when it is missing.")
          .required();
  return schema;
}

Task<Result<std::unique_ptr<Backend>>> open(Runtime& runtime, std::string root) {
  co_return std::make_unique<FolderBackend>(runtime, std::move(root));
}

Task<Result<std::unique_ptr<Backend>>> embed(Context /*context*/, Runtime& runtime, std::string name,
                                             std::string directory) {
  return open(runtime, directory + "/" + name);
}

Task<Result<std::unique_ptr<Backend>>> connect(Context /*context*/, Runtime& runtime, std::string /*name*/,
                                               config::Node options) {
  PRISM_CO_TRY(const auto connection, connection_schema().parse(options));
  co_return co_await open(runtime, connection.path);
}

}  // namespace

std::vector<BackendType> backend_types() {
  return {
      {.name = "filesystem",
       .aliases = {},
       .capabilities = {"object-store"},
       .summary = "objects as files of a folder; the embedded twin of s3",
       .max_object_bytes = 16ULL << 40,  // a file of ext4
       .validate = connection_schema().validator(),
       .options = connection_schema().shared_info(),
       .connect = connect,
       .embed = embed,
       .survival = [](const Deployment&) { return synced_to_one_disk(); }},
      {.name = "s3", .embed = embed},
  };
}

}  // namespace prism::filesystem
