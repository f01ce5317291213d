#include "backends/client/key_names.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <vector>

namespace prism::client {
namespace {

TEST(KeyNames, AreReadableWhereTheyCanBe) {
  EXPECT_EQ(key_name("User42"), "User42");
  EXPECT_EQ(key_name("a/b"), "a!2fb");
  EXPECT_EQ(key_name("a-b_c.d:e"), "a!2db_5fc!2ed=3ae");
  EXPECT_EQ(key_name("\xc3\xbc"), "~c3~bc");
  EXPECT_EQ(key_name(std::string(199, 'x')), std::string(199, 'x'));
  EXPECT_EQ(key_name(std::string(200, 'x')), std::string(200, 'x') + "/!");
  EXPECT_EQ(key_name(std::string(201, 'x')), std::string(200, 'x') + "/x");
}

TEST(KeyNames, NoOtherNameLeadsToAKey) {
  for (const char* name : {"", "a/b", "!", "!2", "!zz", "=41", "!41", "a!2Fb", "~", "x/!"})
    EXPECT_FALSE(key_of_name(name)) << name;
}

TEST(KeyNames, KeepTheOrderOfBytesAndComeBack) {
  std::mt19937 random(7);
  std::vector<std::string> keys{std::string(200, 'x'),       std::string(200, 'x') + '\0', std::string(201, 'x'),
                                std::string(199, 'x'),       std::string(198, 'x') + "/",  std::string(66, '/') + "ab",
                                std::string(66, '/') + "abc"};
  for (int i = 0; i < 3000; ++i) {
    std::string key(1 + random() % (i % 3 == 0 ? 300 : 3), '\0');
    for (char& c : key) c = static_cast<char>(random() % (i % 2 == 0 ? 256 : 3) + (i % 2 == 0 ? 0 : '.'));
    keys.push_back(std::move(key));
  }
  std::ranges::sort(keys);
  std::vector<std::string> names;
  for (const std::string& key : keys) {
    names.push_back(key_name(key));
    EXPECT_EQ(key_of_name(names.back()), key);
    EXPECT_LE(names.back().size(), 3 * key.size() + key.size() * 3 / 200 + 2);
    for (const std::size_t n : {1UL, key.size() / 2, key.size()})
      EXPECT_TRUE(names.back().starts_with(key_name_prefix(key.substr(0, n))));
  }
  EXPECT_TRUE(std::ranges::is_sorted(names));
}

}  // namespace
}  // namespace prism::client
