#include "backends/client/library.h"

#include <gtest/gtest.h>

namespace prism::client {
namespace {

TEST(Library, WhatIsMissingIsSaidWithWhatToInstall) {
  const auto library = Library::open("libprism-has-no-such.so.7", "libsuch7");
  ASSERT_FALSE(library);
  EXPECT_EQ(library.error().reason, "BACKEND_LIBRARY_MISSING");
  EXPECT_NE(library.error().message.find("libprism-has-no-such.so.7"), std::string::npos) << library.error().message;
  EXPECT_NE(library.error().hint.find("libsuch7"), std::string::npos) << library.error().hint;
}

TEST(Library, FunctionsAreFoundByName) {
  const auto library = Library::open("libc.so.6", "libc6");
  ASSERT_TRUE(library) << library.error().message;
  int (*absolute)(int) = nullptr;
  ASSERT_TRUE(library->find("abs", absolute));
  EXPECT_EQ(absolute(-3), 3);
  const auto missing = library->find("no_such_function", absolute);
  ASSERT_FALSE(missing);
  EXPECT_EQ(missing.error().reason, "BACKEND_LIBRARY_MISSING");
}

}  // namespace
}  // namespace prism::client
