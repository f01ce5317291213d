// Values by key on the embedded object store, as the twin of S3 has them.
#include <cstdlib>
#include <filesystem>

#include "backends/client/object_key_values.h"
#include "backends/filesystem/object_store.h"
#include "capabilities/testing/key_value_suite.h"

namespace prism::filesystem {
namespace {

class Bed final : public KeyValueBed {
 public:
  Bed() {
    std::string path = (std::filesystem::temp_directory_path() / "prism-values-XXXXXX").string();
    if (::mkdtemp(path.data()) == nullptr) std::abort();
    folder_ = path;
    restart();
  }
  ~Bed() override { std::filesystem::remove_all(folder_); }
  KeyValueStore& store() override { return *store_; }
  KeyValueStore& other() override { return *other_; }
  void restart() override {
    store_ = open();
    other_ = open();
  }

 private:
  std::shared_ptr<KeyValueStore> open() {
    return client::make_object_key_values(
        {.objects = ObjectStore::open(runtime_, {.root = folder_, .bucket = "b"}, runtime_.budget()).value()});
  }
  Runtime runtime_;
  std::string folder_;
  std::shared_ptr<KeyValueStore> store_, other_;
};

}  // namespace
}  // namespace prism::filesystem

namespace prism {
INSTANTIATE_TEST_SUITE_P(Filesystem, KeyValueSuite,
                         testing::Values(KeyValueParam{"filesystem",
                                                       [] { return std::make_unique<filesystem::Bed>(); }}));
}  // namespace prism
