// The conformance suites of ObjectStore and KeyValueStore on real servers.
// proves: L-02
#include "backends/s3/world_for_test.h"
#include "capabilities/testing/key_value_suite.h"
#include "capabilities/testing/object_store_suite.h"

namespace prism::s3 {
namespace {

class Fixture final : public ObjectStoreFixture {
 public:
  explicit Fixture(Options options) : world_(std::move(options)) {}
  ~Fixture() override { run_blocking(other_client_->close()); }
  prism::ObjectStore& store() override { return *world_.store; }
  std::shared_ptr<prism::ObjectStore> another() override {
    return std::make_shared<ObjectStore>(other_client_, world_.bucket, other_runtime_.budget());
  }
  bool keys_nest() const override { return false; }               // versitygw refuses them, MinIO does not list them
  std::size_t max_segment_bytes() const override { return 240; }  // of a file's name, less what the servers add

 private:
  World world_;
  Runtime other_runtime_;
  std::shared_ptr<Client> other_client_ = std::make_shared<Client>(other_runtime_, world_.options, "another");
};

class KeyValueWorld final : public KeyValueBed {
 public:
  explicit KeyValueWorld(Options options) : world_(std::move(options)) { restart(); }
  ~KeyValueWorld() override { run_blocking(second_->client->close()); }
  KeyValueStore& store() override { return *store_; }
  KeyValueStore& other() override { return *other_; }
  void restart() override {
    store_ = open(world_.client());
    second_ = std::make_unique<TestClient>(world_.runtime, world_.options);
    other_ = open(second_->client);
  }

 private:
  std::shared_ptr<KeyValueStore> open(const std::shared_ptr<Client>& client) {
    const auto objects = std::make_shared<ObjectStore>(client, world_.bucket, world_.runtime.budget());
    return client::make_object_key_values(
        {.objects = objects, .remove_if = [objects](Context context, std::string key, std::string etag) {
           return objects->remove_if(std::move(context), std::move(key), std::move(etag));
         }});
  }
  World world_;
  std::unique_ptr<TestClient> second_;
  std::shared_ptr<KeyValueStore> store_, other_;
};

}  // namespace
}  // namespace prism::s3

namespace prism {
INSTANTIATE_TEST_SUITE_P(Versity, ObjectStoreSuite, testing::Values(ObjectStoreFactory([] {
                           return std::make_unique<s3::Fixture>(s3::versity());
                         })));
INSTANTIATE_TEST_SUITE_P(Minio, ObjectStoreSuite, testing::Values(ObjectStoreFactory([] {
                           return std::make_unique<s3::Fixture>(s3::minio());
                         })));
INSTANTIATE_TEST_SUITE_P(Versity, KeyValueSuite,
                         testing::Values(KeyValueParam{
                             "versitygw", [] { return std::make_unique<s3::KeyValueWorld>(s3::versity()); }}));
INSTANTIATE_TEST_SUITE_P(Minio, KeyValueSuite,
                         testing::Values(KeyValueParam{
                             "minio", [] { return std::make_unique<s3::KeyValueWorld>(s3::minio()); }}));
}  // namespace prism
