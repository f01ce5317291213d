// A bucket of its own on a test's server, for one test, and clients of it.
#pragma once

#include <cstdlib>
#include <memory>
#include <stdexcept>
#include <string>

#include "backends/client/object_key_values.h"
#include "backends/s3/object_store.h"
#include "base/ids.h"
#include "runtime/scope.h"

namespace prism::s3 {

template <class T>
T must(Result<T> result) {
  if (!result) throw std::runtime_error(result.error().describe());
  if constexpr (!std::is_void_v<T>) return std::move(*result);
}

inline std::string variable(const char* name) {
  const char* const text = std::getenv(name);
  if (text == nullptr) throw std::runtime_error(std::string(name) + " is not set: scripts/servers env");
  return text;
}

inline Options versity() {
  Options out;
  out.endpoint = variable("PRISM_TEST_S3");
  out.region = variable("PRISM_TEST_S3_REGION");
  out.access_key_id = variable("PRISM_TEST_S3_ACCESS_KEY");
  out.secret_access_key = config::Secret(variable("PRISM_TEST_S3_SECRET_KEY"));
  return out;
}

inline Options minio() {
  Options out;
  out.endpoint = variable("PRISM_TEST_S3_MINIO");
  out.access_key_id = variable("PRISM_TEST_S3_MINIO_ACCESS_KEY");
  out.secret_access_key = config::Secret(variable("PRISM_TEST_S3_MINIO_SECRET_KEY"));
  return out;
}

struct TestClient {
  TestClient(Runtime& runtime, Options options)
      : client(std::make_shared<Client>(runtime, std::move(options), "test-objects")) {}
  ~TestClient() { run_blocking(client->close()); }
  std::shared_ptr<Client> client;
};

class World {
 public:
  explicit World(Options given)
      : bucket("t-" + to_hex(random_id())), options(with_bucket(std::move(given))), first_(runtime, options) {
    must(run_blocking(first_.client->create_bucket({}, bucket)));
    store = std::make_shared<ObjectStore>(first_.client, bucket, runtime.budget());
  }
  ~World() {
    static_cast<void>(run_blocking(store->abort_uploads({}, "", wall_now() + std::chrono::hours(24))));
    for (int round = 0; round < 100; ++round) {
      const auto listed = run_blocking(store->list({}, "", "", 1000));
      if (!listed || listed->empty()) break;
      Batch<std::string> keys;
      for (const ObjectInfo& info : *listed) keys.push_back(info.key);
      static_cast<void>(run_blocking(store->remove({}, std::move(keys))));
    }
    static_cast<void>(run_blocking(first_.client->call({}, Call{.method = "DELETE", .bucket = bucket})));
  }
  const std::shared_ptr<Client>& client() const { return first_.client; }

  Runtime runtime;
  const std::string bucket;
  const Options options;

 private:
  static Options with_bucket(Options given) {
    given.create_bucket = true;
    return given;
  }
  TestClient first_;

 public:
  std::shared_ptr<ObjectStore> store;
};

}  // namespace prism::s3
