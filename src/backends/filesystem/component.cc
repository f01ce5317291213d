#include <map>
#include <mutex>

#include "backends/filesystem/object_store.h"
#include "capabilities/backend.h"
#include "config/schema.h"
#include "config/secret.h"
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

// Connection options of the store that a folder stands in for when Prism runs embedded, so that a file for a real one
// is checked before there is one.
struct S3 {
  std::optional<std::string> endpoint, region, access_key_id;
  std::optional<config::Secret> secret_access_key;
  bool path_style = false;
};

const config::Schema<S3>& s3_schema() {
  static const auto schema =
      config::Schema<S3>("s3", "Connection to S3 and what speaks its protocol.")
          .field(&S3::endpoint, "endpoint",
                 config::Text{.pattern = R"(https?://[A-Za-z0-9._\[\]:-]+/?)",
                              .expects = "an address that begins with http:// or https://"},
                 "The service; without it that of the region.")
          .example("https://minio.example.com:9000")
          .field(&S3::region, "region",
                 config::Text{.pattern = "[a-z0-9-]{1,40}", .expects = "a region such as eu-central-1"}, "The region.")
          .field(&S3::access_key_id, "access_key_id", config::Text{}, "Name of the key; without it the environment's.")
          .field(&S3::secret_access_key, "secret_access_key", config::SecretText{}, "The key.")
          .field(&S3::path_style, "path_style", config::Bool{}, "Buckets in the path instead of the host's name.")
          .default_("false")
          .check({"access_key_id", "secret_access_key"},
                 [](const S3& s3, const config::Node& map, config::Diagnostics& diagnostics) {
                   if (s3.access_key_id.has_value() == s3.secret_access_key.has_value()) return;
                   const std::string given = s3.access_key_id ? "access_key_id" : "secret_access_key";
                   const std::string other = s3.access_key_id ? "secret_access_key" : "access_key_id";
                   diagnostics.error(*map.find(given), "MISSING_OPTION",
                                     "'" + given + "' is of no use without '" + other + "'", "give both, or neither");
                 });
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
       .validate = connection_schema().validator(),
       .options = connection_schema().shared_info(),
       .connect = connect,
       .embed = embed,
       .survival = [](const Deployment&) { return synced_to_one_disk(); }},
      {.name = "s3",
       .aliases = {"minio"},
       .capabilities = {"object-store"},
       .summary = "S3 and what speaks its protocol",
       .validate = s3_schema().validator(),
       .options = s3_schema().shared_info(),
       .connect = nullptr,
       .embed = embed,
       .survival =
           [](const Deployment& deployment) {
             Survival out = Survival::everything();
             out.why = "S3 answers when several zones have the object";
             if (deployment.options.find("endpoint") != nullptr) {
               out.disk_loss = Survives::depends;
               out.why =
                   "the store behind this endpoint answers when it has the object synced; what it survives "
                   "depends on its copies and parity";
             }
             return out;
           }},
  };
}

}  // namespace prism::filesystem
