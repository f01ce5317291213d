#include <gtest/gtest.h>

#include "base/base64.h"
#include "base/bytes.h"
#include "base/crc32c.h"
#include "base/ids.h"
#include "base/text.h"

namespace prism {
namespace {

TEST(Crc32c, MatchesThePublishedVectors) {
  EXPECT_EQ(crc32c(0, "123456789"), 0xe3069283U);            // the usual check value
  EXPECT_EQ(crc32c(0, std::string(32, '\0')), 0x8a9136aaU);  // RFC 3720, B.4
  EXPECT_EQ(crc32c(0, std::string(32, '\xff')), 0x62a8ab43U);
}

TEST(Crc32c, ContinuesAcrossPieces) {
  std::string data;
  for (int i = 0; i < 100'000; ++i) data += static_cast<char>(i * 31);
  const std::uint32_t whole = crc32c(0, data);
  for (const std::size_t cut : {1UL, 7UL, 3071UL, 3072UL, 50'000UL}) {
    const std::string_view view = data;
    EXPECT_EQ(crc32c(crc32c(0, view.substr(0, cut)), view.substr(cut)), whole) << cut;
  }
}

TEST(Ids, Uuid7SortsByTimeAndTellsIt) {
  const WallTime t1{std::chrono::milliseconds(1'700'000'000'000)};
  const auto a = uuid7_at(t1);
  const auto b = uuid7_at(t1 + std::chrono::milliseconds(1));
  EXPECT_LT(a, b);
  EXPECT_EQ(uuid7_time(a), t1);
  EXPECT_EQ(uuid7_time("not a uuid"), std::nullopt);
  EXPECT_NE(uuid7(), uuid7());
}

TEST(Ids, HexRoundTrips) {
  const Id128 id = random_id();
  EXPECT_EQ(from_hex(to_hex(id)), id);
  EXPECT_EQ(from_hex("xyz"), std::nullopt);
}

TEST(Base64, MatchesRfc4648) {
  EXPECT_EQ(base64_encode(""), "");
  EXPECT_EQ(base64_encode("f"), "Zg==");
  EXPECT_EQ(base64_encode("fo"), "Zm8=");
  EXPECT_EQ(base64_encode("foobar"), "Zm9vYmFy");
  EXPECT_EQ(base64url_encode("\xfb\xff"), "-_8");
  std::string all;
  for (int i = 0; i < 256; ++i) all += static_cast<char>(i);
  for (std::size_t n = 0; n < all.size(); ++n) {
    EXPECT_EQ(base64_decode(base64_encode(all.substr(0, n))), all.substr(0, n));
    EXPECT_EQ(base64url_decode(base64url_encode(all.substr(n))), all.substr(n));
  }
  for (const char* bad : {"Z", "Zg=", "Zg", "Zh==", "Z===", "Zg==Zg==", "a b="})
    EXPECT_EQ(base64_decode(bad), std::nullopt) << bad;
}

TEST(Bytes, SliceKeepsTheOwnerAlive) {
  Bytes part;
  {
    const Bytes whole(std::string(1000, 'a') + "tail");
    part = whole.slice(1000);
  }
  EXPECT_EQ(part, "tail");
  EXPECT_EQ(part.slice(99).size(), 0U);
}

TEST(Text, ShowsWhateverAClientHasSent) {
  EXPECT_EQ(shown("orders"), "orders");
  EXPECT_EQ(shown(std::string(kShownBytes, 'x')), std::string(kShownBytes, 'x'));
  EXPECT_EQ(shown(std::string(8000, 'x')), std::string(kShownBytes, 'x') + "...");
  EXPECT_EQ(shown(std::string(59, 'x') + "\xC3\xA4"), std::string(59, 'x') + "...");  // no half of a character
  EXPECT_EQ(shown("a\nb\x7F\xFF\xE2\x82"), "a?b????");
  EXPECT_EQ(shown("gr\xC3\xBC\xC3\x9F"), "gr\xC3\xBC\xC3\x9F");
}

TEST(Text, MakesVisibleWhatIsNotSeen) {
  EXPECT_EQ(made_visible("a\tb\nc"), "a b c");
  EXPECT_EQ(made_visible("a\xE2\x80\xAE"
                         "b"),
            "a\\u202Eb");
  EXPECT_EQ(made_visible("\x1B[31m\x7F"), "\\u001B[31m\\u007F");
  EXPECT_EQ(made_visible("\xF3\xA0\x81\x81"), "\\U000E0041");
  EXPECT_EQ(made_visible("\xFFgr\xC3\xBC\xC3\x9F \xF0\x9F\x98\x80"), "?gr\xC3\xBC\xC3\x9F \xF0\x9F\x98\x80");
  EXPECT_EQ(shown("a\xE2\x80\xAE"
                  "b"),
            "a?b");
}

TEST(Text, KnowsUtf8) {
  for (const std::string_view good :
       {"a", "\xC2\x80", "\xE0\xA0\x80", "\xED\x9F\xBF", "\xEF\xBF\xBD", "\xF0\x90\x80\x80", "\xF4\x8F\xBF\xBF"}) {
    EXPECT_EQ(utf8_sequence(good), good.size());
    EXPECT_EQ(utf8_sequence(std::string(good) + "x"), good.size());
    EXPECT_EQ(utf8_sequence(good.substr(0, good.size() - 1)), 0U);
  }
  for (const std::string_view bad : {"\x80", "\xC0\x80", "\xC1\xBF", "\xE0\x9F\xBF", "\xED\xA0\x80", "\xF0\x8F\xBF\xBF",
                                     "\xF4\x90\x80\x80", "\xF5\x80\x80\x80", "\xFF"}) {
    EXPECT_EQ(utf8_sequence(bad), 0U);
  }
}

}  // namespace
}  // namespace prism
