// proves: M-06, M-13
#include "patterns/claim_check/counted.h"

#include <gtest/gtest.h>

#include "patterns/claim_check/objects_for_test.h"
#include "runtime/scope.h"

namespace prism::claim_check {
namespace {

using namespace std::chrono_literals;

// Between two pages of a listing something may happen.
class Listed final : public MemoryObjects {
 public:
  std::function<void(std::size_t page)> after_page;
  std::size_t pages = 0;
  bool down = false;

  void keep(const std::string& key, std::uint64_t size) {
    ObjectInfo info;
    info.key = key;
    info.size = size;
    objects[key] = {{}, std::move(info)};
  }
  Task<Result<Batch<ObjectInfo>>> list(Context context, std::string prefix, std::string after,
                                       std::size_t max) override {
    if (down) co_return fail(Code::unavailable, "DOWN", "down");
    auto page = co_await MemoryObjects::list(std::move(context), std::move(prefix), std::move(after), max);
    ++pages;
    if (after_page) after_page(pages);
    co_return page;
  }
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
  store->keep(key(1), 5);
  store->keep("q/other", 100);
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
  for (int i = 0; i < 2500; ++i) store->keep(key(i), 1);
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
  store->keep(key(9000), 10);
  held.stored(key(9000), 10);
  count();
  EXPECT_EQ(bytes(), "2508");
  EXPECT_EQ(store->pages, 3U);
}

TEST_F(HeldTest, IsNotListedAnewAtOnceAndGoesOnAfterAnError) {
  store->down = true;
  EXPECT_FALSE(run_blocking(held.count(Context(), store, "p/")));
  store->down = false;
  store->keep(key(1), 5);
  count();
  EXPECT_EQ(bytes(), "5");
  store->keep(key(2), 5);  // by another process
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
