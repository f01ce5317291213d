// proves: M-06, M-13
#include "patterns/claim_check/counted.h"

#include <gtest/gtest.h>

#include <map>

#include "runtime/scope.h"

namespace prism::claim_check {
namespace {

using namespace std::chrono_literals;

// Objects of one byte each; between two pages something may happen.
class Listed final : public ObjectStore {
 public:
  std::map<std::string, std::uint64_t> objects;
  std::function<void(std::size_t page)> after_page;
  std::size_t pages = 0;
  bool down = false;

  const ObjectFeatures& features() const noexcept override { return features_; }
  Task<Result<ObjectInfo>> put(Context /*c*/, std::string /*key*/, Payload /*p*/, PutOptions /*o*/) override {
    co_return fail(Code::unimplemented, "NO", "no");
  }
  Task<Result<std::pair<ObjectInfo, Payload>>> get(Context /*c*/, std::string /*key*/, std::uint64_t /*from*/,
                                                   std::optional<std::uint64_t> /*n*/) override {
    co_return fail(Code::unimplemented, "NO", "no");
  }
  Task<Result<ObjectInfo>> head(Context /*c*/, std::string /*key*/) override {
    co_return fail(Code::unimplemented, "NO", "no");
  }
  Task<Batch<Result<void>>> remove(Context /*c*/, Batch<std::string> keys) override {
    co_return Batch<Result<void>>(keys.size());
  }
  Task<Result<Batch<ObjectInfo>>> list(Context /*c*/, std::string prefix, std::string after, std::size_t max) override {
    if (down) co_return fail(Code::unavailable, "DOWN", "down");
    Batch<ObjectInfo> out;
    for (auto it = objects.upper_bound(after); it != objects.end() && out.size() < max; ++it) {
      if (!it->first.starts_with(prefix)) continue;
      ObjectInfo info;
      info.key = it->first;
      info.size = it->second;
      out.push_back(std::move(info));
    }
    ++pages;
    if (after_page) after_page(pages);
    co_return out;
  }
  Task<Result<std::size_t>> abort_uploads(Context /*c*/, std::string /*prefix*/, WallTime /*t*/) override {
    co_return 0;
  }
  Task<void> close(Context /*c*/) override { co_return; }

 private:
  ObjectFeatures features_;
};

std::string key(int i) {
  char text[16];
  std::snprintf(text, sizeof text, "p/%06d", i);
  return text;
}

struct HeldTest : testing::Test {
  Metrics metrics;
  PatternMetrics shown{metrics, "media", true};
  std::shared_ptr<Listed> store = std::make_shared<Listed>();
  Held held{shown};

  std::string line(const std::string& name) const {
    const std::string text = metrics.expose();
    const auto at = text.find("\n" + name + "{namespace=\"media\"} ");
    return at == std::string::npos
               ? ""
               : text.substr(at + 1 + name.size() + 20, text.find('\n', at + 1) - at - 21 - name.size());
  }
  std::string bytes() const { return line("prism_pattern_claim_check_storage_bytes"); }
  void count(Context context = {}) { EXPECT_TRUE(run_blocking(held.count(std::move(context), store, "p/"))); }
};

TEST_F(HeldTest, IsNotShownUntilItIsKnown) {
  held.stored(key(1), 5);
  EXPECT_EQ(bytes(), "");
  store->objects[key(1)] = 5;
  store->objects["q/other"] = 100;
  count();
  EXPECT_EQ(bytes(), "5");
  EXPECT_EQ(line("prism_claim_check_storage_bytes"), "5");
  held.stored(key(2), 7);
  held.removed(key(1), 5);
  EXPECT_EQ(bytes(), "7");
  EXPECT_EQ(line("prism_pattern_claim_check_storage_objects"), "1");
  held.removed(key(1), 50);  // somebody else had removed it: the next listing tells
  EXPECT_EQ(bytes(), "0");
}

TEST_F(HeldTest, AListingGoesOnWhereItWasCutOffAndSeesWhatChangedBehindIt) {
  for (int i = 0; i < 2500; ++i) store->objects[key(i)] = 1;
  std::stop_source cut;
  store->after_page = [&](std::size_t page) {
    if (page == 1) cut.request_stop();
  };
  count(Context::background(cut.get_token()));
  EXPECT_EQ(store->pages, 1U);
  EXPECT_EQ(bytes(), "") << "not at the end yet";
  store->objects.erase(key(3));  // behind the place
  held.removed(key(3), 1);
  store->objects.erase(key(2000));  // ahead of it
  held.removed(key(2000), 1);
  store->objects[key(9000)] = 10;
  held.stored(key(9000), 10);
  count();
  EXPECT_EQ(bytes(), "2508");
  EXPECT_EQ(store->pages, 3U);
}

TEST_F(HeldTest, IsNotListedAnewAtOnceAndGoesOnAfterAnError) {
  store->down = true;
  EXPECT_FALSE(run_blocking(held.count(Context(), store, "p/")));
  store->down = false;
  store->objects[key(1)] = 5;
  count();
  EXPECT_EQ(bytes(), "5");
  store->objects[key(2)] = 5;  // by another process
  count();
  EXPECT_EQ(bytes(), "5");
  EXPECT_EQ(store->pages, 1U);
}

// proves: M-26
TEST(Counted, IsNotShownWhereTheNamespaceSaysSo) {
  Metrics metrics;
  const Counted counted(PatternMetrics(metrics, "media", false));
  counted.stored->add();
  counted.held->stored(key(1), 5);
  EXPECT_EQ(metrics.expose(), "");
}

}  // namespace
}  // namespace prism::claim_check
