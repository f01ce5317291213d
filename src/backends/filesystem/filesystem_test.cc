#include <fcntl.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <random>

#include "backends/filesystem/errors.h"
#include "backends/filesystem/footer.h"
#include "backends/filesystem/keys.h"
#include "backends/filesystem/object_store.h"
#include "base/ids.h"
#include "capabilities/testing/object_store_suite.h"

namespace prism::filesystem {
namespace {

namespace fs = std::filesystem;
constexpr std::uint64_t kMiB = 1UL << 20;

class TempFolder {
 public:
  TempFolder() {
    std::string pattern = (fs::temp_directory_path() / "prism-fs-XXXXXX").string();
    path_ = ::mkdtemp(pattern.data());
  }
  ~TempFolder() {
    std::error_code ignored;
    fs::remove_all(path_, ignored);
  }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

std::vector<std::string> tree(const std::string& path) {
  std::vector<std::string> out;
  for (const auto& entry : fs::recursive_directory_iterator(path))
    out.push_back(fs::relative(entry.path(), path).string());
  std::ranges::sort(out);
  return out;
}

class Fixture : public ObjectStoreFixture {
 public:
  ObjectStore& store() override { return *store_; }
  std::shared_ptr<prism::ObjectStore> another() override {
    return ObjectStore::open(other_runtime, {.root = folder.path() + "/data", .bucket = "bucket"}, other_budget)
        .value();
  }
  std::shared_ptr<ObjectStore> open(const std::string& bucket = "bucket") {
    return ObjectStore::open(runtime, {.root = folder.path() + "/data", .bucket = bucket}, budget).value();
  }
  std::string objects() const { return folder.path() + "/data/bucket/objects"; }
  std::string uploads() const { return folder.path() + "/data/bucket/uploads"; }

  TempFolder folder;
  Runtime runtime;
  std::shared_ptr<ByteBudget> budget = ByteBudget::make(runtime.next_loop(), 16 * kMiB);
  Runtime other_runtime;
  std::shared_ptr<ByteBudget> other_budget = ByteBudget::make(other_runtime.next_loop(), 16 * kMiB);

 private:
  std::shared_ptr<ObjectStore> store_ = open();
};

}  // namespace
}  // namespace prism::filesystem

namespace prism {
INSTANTIATE_TEST_SUITE_P(Filesystem, ObjectStoreSuite,
                         testing::Values(ObjectStoreFactory([] { return std::make_unique<filesystem::Fixture>(); })));
}  // namespace prism

namespace prism::filesystem {
namespace {

class FilesystemTest : public testing::Test, public Fixture {
 protected:
  Result<ObjectInfo> put(std::string key, Payload payload, PutOptions options = {}) {
    return run_blocking(store().put({}, std::move(key), std::move(payload), std::move(options)));
  }
  Result<ObjectInfo> put(std::string key, std::string content) {
    return put(std::move(key), Payload(Bytes(std::move(content))));
  }
  Result<std::string> read(std::string key, std::uint64_t from = 0, std::optional<std::uint64_t> n = {}) {
    PRISM_TRY(auto got, run_blocking(store().get({}, std::move(key), from, n)));
    PRISM_TRY(const Bytes all, run_blocking(got.second.collect({}, 1UL << 30)));
    return all.str();
  }
};

TEST(Keys, LeadToPathsAndBack) {
  const auto path = [](std::string_view key) {
    const ObjectPath p = object_path(key);
    return p.folder + "|" + p.file();
  };
  EXPECT_EQ(path("a"), "|a.o");
  EXPECT_EQ(path("a/b"), "a|b.o");
  EXPECT_EQ(path("x.o/y"), "x%2Eo|y.o");
  EXPECT_EQ(path("50%/\xc3\xa4"), "50%25|%C3%A4.o");
  const std::string part(64, 'p');
  EXPECT_EQ(path(part), part + "%~|%_.o");
  EXPECT_EQ(path(part + "/q"), part + "%~/%_|q.o");
  EXPECT_EQ(path(part + part + "r"), part + "%~/" + part + "%~|r.o");
  for (const char* foreign : {"%", "%2", "%41.o", "%zz", "x.tmp%", "a%2fb.o", "..%00/x"})
    EXPECT_FALSE(decode_name(foreign)) << foreign;
  EXPECT_FALSE(decode_name("short%~"));
  EXPECT_FALSE(decode_name(part + ".o"));
  EXPECT_FALSE(decode_name("%_%~"));
}

TEST_F(FilesystemTest, ContentIsReadableAsItIs) {
  ASSERT_TRUE(put("videos/a.mp4", "the content"));
  std::ifstream file(objects() + "/videos/a.mp4.o");
  std::string begin(11, '\0');
  file.read(begin.data(), 11);
  EXPECT_EQ(begin, "the content");
}

TEST_F(FilesystemTest, EmptyFoldersAreRemoved) {
  ASSERT_TRUE(put("a/b/c/d", "x"));
  ASSERT_TRUE(put("a/b/e", "x"));
  ASSERT_TRUE(run_blocking(store().remove({}, {"a/b/c/d"})).front());
  EXPECT_EQ(tree(objects()), (std::vector<std::string>{"a", "a/b", "a/b/e.o"}));
  ASSERT_TRUE(run_blocking(store().remove({}, {"a/b/e"})).front());
  EXPECT_TRUE(tree(objects()).empty());
}

TEST_F(FilesystemTest, ForeignFilesAreNoObjects) {
  ASSERT_TRUE(put("a", "x"));
  std::ofstream(objects() + "/notes.txt") << "x";
  std::ofstream(objects() + "/%zz.o") << "x";
  std::ofstream(uploads() + "/lost+found.o") << "x";
  fs::create_symlink("/etc/passwd", objects() + "/link.o");
  fs::create_directory_symlink("/etc", objects() + "/etc");
  EXPECT_FALSE(run_blocking(store().head({}, "link")));
  EXPECT_FALSE(put("etc/prism", "x"));
  fs::remove(objects() + "/link.o");
  fs::remove(objects() + "/etc");
  EXPECT_EQ(run_blocking(store().head({}, "notes.txt/x")).error().reason, "OBJECT_NOT_FOUND");
  EXPECT_TRUE(run_blocking(store().remove({}, {"notes.txt/x"})).front());
  const auto listed = run_blocking(store().list({}, "", "", 10));
  ASSERT_TRUE(listed) << listed.error().describe();
  ASSERT_EQ(listed->size(), 1U);
  EXPECT_EQ(listed->front().key, "a");
  EXPECT_EQ(run_blocking(store().abort_uploads({}, "", wall_now() + std::chrono::hours(1))), 0U);
}

TEST_F(FilesystemTest, DamageIsFound) {
  const std::string content = PatternSource::bytes(0, 3'000'000);
  const std::string file = objects() + "/k.o";
  const auto damage = [&](auto&& change) {
    ASSERT_TRUE(put("k", content));
    ASSERT_EQ(read("k"), content);
    change();
    const auto got = read("k");
    ASSERT_FALSE(got);
    EXPECT_EQ(got.error().reason, "OBJECT_DAMAGED");
    EXPECT_EQ(got.error().code, Code::data_loss);
    EXPECT_NE(got.error().message.find("'k'"), std::string::npos);
  };
  const auto flip = [&](std::uint64_t at) {
    std::fstream f(file, std::ios::in | std::ios::out | std::ios::binary);
    f.seekg(static_cast<std::streamoff>(at));
    const char c = static_cast<char>(f.get());
    f.seekp(static_cast<std::streamoff>(at));
    f.put(static_cast<char>(c ^ 1));
  };
  damage([&] { flip(0); });
  damage([&] { flip(2'999'999); });
  // A part of it does not prove anything; the bytes before the damage may be read.
  EXPECT_EQ(read("k", 0, 2'000'000), content.substr(0, 2'000'000));
  damage([&] { flip(3'000'004); });                   // the footer
  damage([&] { flip(fs::file_size(file) - 1); });     // its magic
  damage([&] { fs::resize_file(file, 1'000'000); });  // cut
  damage([&] { fs::resize_file(file, 0); });
  damage([&] { fs::resize_file(file, fs::file_size(file) + 4096); });  // grown
  // It is listed without an etag, and can be removed or replaced.
  const auto listed = run_blocking(store().list({}, "", "", 10));
  ASSERT_TRUE(listed);
  ASSERT_EQ(listed->size(), 1U);
  EXPECT_EQ(listed->front().key, "k");
  EXPECT_TRUE(listed->front().etag.empty());
  ASSERT_TRUE(put("k", content));
  EXPECT_EQ(read("k"), content);
}

TEST_F(FilesystemTest, AFileThatIsCutWhileItIsReadIsDamaged) {
  ASSERT_TRUE(put("k", PatternSource::payload({.size = 8 * kMiB})));
  auto got = run_blocking(store().get({}, "k", 0, std::nullopt));
  ASSERT_TRUE(got && run_blocking(got->second.next({}, 1000)));
  fs::resize_file(objects() + "/k.o", 4 * kMiB);
  const auto rest = run_blocking(got->second.collect({}, 1UL << 30));
  ASSERT_FALSE(rest);
  EXPECT_EQ(rest.error().reason, "OBJECT_DAMAGED");
}

TEST_F(FilesystemTest, ARemovedObjectIsReadToItsEnd) {
  ASSERT_TRUE(put("k", PatternSource::payload({.size = 8 * kMiB})));
  auto got = run_blocking(store().get({}, "k", 0, std::nullopt));
  ASSERT_TRUE(got);
  ASSERT_TRUE(run_blocking(store().remove({}, {"k"})).front());
  const auto content = run_blocking(got->second.collect({}, 1UL << 30));
  ASSERT_TRUE(content);
  EXPECT_TRUE(content->view() == PatternSource::bytes(0, 8 * kMiB));
}

TEST_F(FilesystemTest, AFullDiskIsToldAndLeavesNothing) {
  // A limit of the file size stands for the full disk: write() fails in the middle in the same way.
  struct sigaction ignore{};
  struct sigaction old_action{};
  ignore.sa_handler = SIG_IGN;
  ::sigaction(SIGXFSZ, &ignore, &old_action);
  rlimit old_limit{};
  ::getrlimit(RLIMIT_FSIZE, &old_limit);
  const rlimit limit{5 * kMiB, old_limit.rlim_max};
  ::setrlimit(RLIMIT_FSIZE, &limit);
  const auto full = put("k", PatternSource::payload({.size = 20 * kMiB}));
  const auto fits = put("small", "x");
  ::setrlimit(RLIMIT_FSIZE, &old_limit);
  ::sigaction(SIGXFSZ, &old_action, nullptr);
  ASSERT_FALSE(full);
  EXPECT_EQ(full.error().reason, "DISK_FULL");
  EXPECT_EQ(full.error().code, Code::resource_exhausted);
  EXPECT_TRUE(fits);
  EXPECT_TRUE(tree(uploads()).empty());
  EXPECT_EQ(tree(objects()), std::vector<std::string>{"small.o"});
  EXPECT_EQ(budget->used(), 0U);
}

TEST(Errors, AreTranslated) {
  const auto reason = [](int number) { return error_of(number, "do", "it").reason; };
  EXPECT_EQ(reason(ENOSPC), "DISK_FULL");
  EXPECT_EQ(reason(EDQUOT), "DISK_FULL");
  EXPECT_EQ(reason(EFBIG), "DISK_FULL");
  EXPECT_EQ(reason(ENOENT), "OBJECT_NOT_FOUND");
  EXPECT_EQ(reason(EIO), "STORAGE_IO_ERROR");
  EXPECT_EQ(error_of(EIO, "do", "it").code, Code::data_loss);
  EXPECT_EQ(reason(EMFILE), "STORAGE_OVERLOADED");
  EXPECT_EQ(error_of(EMFILE, "do", "it").retry, Retry::safe);
  EXPECT_EQ(reason(EACCES), "STORAGE_PERMISSION_DENIED");
  EXPECT_EQ(reason(EROFS), "STORAGE_READ_ONLY");
  EXPECT_EQ(reason(ESTALE), "STORAGE_UNAVAILABLE");
  EXPECT_EQ(error_of(EIO, "store the object", "k").message, "cannot store the object 'k': Input/output error");
}

TEST_F(FilesystemTest, WhatCannotBeOpenedIsSaid) {
  EXPECT_EQ(ObjectStore::open(runtime, {.root = folder.path(), .bucket = "../x"}, budget).error().reason,
            "INVALID_BUCKET");
  EXPECT_EQ(ObjectStore::open(runtime, {.root = folder.path(), .bucket = ""}, budget).error().reason, "INVALID_BUCKET");
  std::ofstream(folder.path() + "/file") << "x";
  EXPECT_FALSE(ObjectStore::open(runtime, {.root = folder.path() + "/file", .bucket = "b"}, budget));
  EXPECT_TRUE(ObjectStore::open(runtime, {.root = folder.path() + "/new/deep/er", .bucket = "b"}, budget));
}

TEST_F(FilesystemTest, BucketsAreApart) {
  const auto other = open("another");
  ASSERT_TRUE(put("k", "x"));
  EXPECT_FALSE(run_blocking(other->head({}, "k")));
}

TEST_F(FilesystemTest, OnlyUploadsThatWereLeftBehindAreAborted) {
  fs::create_directories(uploads() + "/p/q");
  const auto leave = [&](const std::string& stem, std::chrono::minutes ago) {
    const std::string file = uploads() + "/" + stem + "." + uuid7_at(wall_now() - ago) + ".o";
    std::ofstream(file) << "x";
    return file;
  };
  const std::string old = leave("p/old", std::chrono::minutes(100));
  const std::string other_prefix = leave("old", std::chrono::minutes(100));
  const std::string fresh = leave("p/fresh", std::chrono::minutes(10));
  const std::string deep = leave("p/q/deep", std::chrono::minutes(100));
  const std::string held = leave("p/held", std::chrono::minutes(100));
  const int fd = ::open(held.c_str(), O_RDONLY | O_CLOEXEC);
  ASSERT_EQ(::flock(fd, LOCK_EX), 0);  // as its put, in this or another process, would
  const auto limit = wall_now() - std::chrono::minutes(60);
  EXPECT_EQ(run_blocking(store().abort_uploads({}, "p/", limit)), 2U);
  EXPECT_FALSE(fs::exists(old));
  EXPECT_FALSE(fs::exists(uploads() + "/p/q"));
  EXPECT_TRUE(fs::exists(other_prefix) && fs::exists(fresh) && fs::exists(held));
  ::close(fd);
  EXPECT_EQ(run_blocking(store().abort_uploads({}, "", wall_now())), 3U);
  EXPECT_TRUE(tree(uploads()).empty());
}

TEST_F(FilesystemTest, AnUploadUnderWayIsNotAborted) {
  const auto other = another();
  PatternSource::Options options{.size = 5 * kMiB};
  options.on_pull = [&](std::uint64_t /*at*/) {
    std::jthread(
        [&] { EXPECT_EQ(run_blocking(other->abort_uploads({}, "", wall_now() + std::chrono::hours(1))), 0U); });
  };
  EXPECT_TRUE(put("k", PatternSource::payload(options)));
}

TEST_F(FilesystemTest, AnUploadRemovedUnderWayIsAborted) {
  PatternSource::Options options{.size = 5 * kMiB};
  options.on_pull = [&](std::uint64_t at) {
    if (at < 4 * kMiB) return;
    for (const auto& entry : fs::directory_iterator(uploads())) fs::remove(entry.path());
  };
  const auto result = put("k", PatternSource::payload(options));
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().reason, "UPLOAD_ABORTED");
  EXPECT_TRUE(tree(objects()).empty());
}

std::size_t peak_kib() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with("VmHWM:")) return std::stoul(line.substr(6));
  }
  return 0;
}

Task<int> stream_through(ObjectStore* store, std::string key, std::uint64_t size) {
  auto put = co_await store->put({}, key, PatternSource::payload({.size = size, .piece = 131072}), {});
  if (!put) co_return 1;
  auto got = co_await store->get({}, key, 0, std::nullopt);
  if (!got) co_return 1;
  std::uint32_t crc = 0;
  while (true) {
    auto piece = co_await got->second.next({}, 131072);
    if (!piece) co_return 1;
    if (piece->empty()) break;
    crc = crc32c(crc, piece->view());
  }
  co_return crc == put->crc32c ? 0 : 1;
}

// proves: C-25 (for the object store)
TEST_F(FilesystemTest, MemoryStaysFlat) {
#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
  GTEST_SKIP() << "sanitizers keep memory of their own";
#endif
#endif
  ASSERT_EQ(run_blocking(stream_through(&store(), "warm", 8 * kMiB)), 0);
  std::ofstream("/proc/self/clear_refs") << "5";  // the peak begins anew
  const std::size_t before = peak_kib();
  std::vector<Task<int>> streams;
  for (int i = 0; i < 4; ++i) streams.push_back(stream_through(&store(), "k" + std::to_string(i), 64 * kMiB));
  for (const int wrong : run_blocking(when_all(std::move(streams)))) EXPECT_EQ(wrong, 0);
  EXPECT_LT(peak_kib() - before, 24U * 1024) << "256 MiB went through in 4 streams";
  EXPECT_EQ(budget->used(), 0U);
}

TEST_F(FilesystemTest, WorksOnTheSmallestBudget) {
  const auto tiny = ByteBudget::make(runtime.next_loop(), 1);
  const auto slow = ObjectStore::open(runtime, {.root = folder.path(), .bucket = "tiny"}, tiny).value();
  std::vector<Task<int>> streams;
  for (int i = 0; i < 6; ++i) streams.push_back(stream_through(slow.get(), "k" + std::to_string(i), 3 * kMiB + 1));
  for (const int wrong : run_blocking(when_all(std::move(streams)))) EXPECT_EQ(wrong, 0);
  EXPECT_EQ(tiny->used(), 0U);
}

constexpr unsigned kVictim = 2;  // in this object of the even rounds the process kills itself

std::uint64_t size_of(unsigned round, unsigned i) {
  return round % 2 == 0 && i == kVictim ? 6 * kMiB : (i * 7919 + round * 104729) % (3 * kMiB);
}

Task<Result<void>> put_until_killed(ObjectStore* store, int to, unsigned round) {
  for (unsigned i = 0;; ++i) {
    PatternSource::Options options{.size = size_of(round, i), .seed = i};
    if (round % 2 == 0 && i == kVictim) {
      // The first piece is in the file by then.
      options.on_pull = [at_least = 3 * kMiB + round * 150'000](std::uint64_t at) {
        if (at >= at_least) ::kill(::getpid(), SIGKILL);
      };
    }
    auto put = co_await store->put({}, "k/" + std::to_string(i), PatternSource::payload(options), {});
    if (!put) co_return fail(std::move(put).error());
    if (::write(to, &i, sizeof i) != sizeof i) co_return Result<void>();
  }
}

// A process is killed while it stores objects, in the middle of one (even rounds) or anywhere (odd ones): what it had
// acknowledged is there and whole, and nothing else is seen but whole objects. The remains go with abort_uploads().
TEST(FilesystemCrash, AKilledPutLeavesNothingVisible) {
  std::mt19937 random(20);
  constexpr unsigned kRounds = 20;
  for (unsigned round = 0; round < kRounds; ++round) {
    SCOPED_TRACE(round);
    const TempFolder folder;
    int acknowledged[2];
    ASSERT_EQ(::pipe2(acknowledged, O_CLOEXEC), 0);
    // No other thread is alive here: the child may use everything.
    const pid_t child = ::fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      ::close(acknowledged[0]);
      Runtime runtime;
      const auto budget = ByteBudget::make(runtime.next_loop(), 16 * kMiB);
      const auto store = ObjectStore::open(runtime, {.root = folder.path(), .bucket = "b"}, budget).value();
      static_cast<void>(run_blocking(put_until_killed(store.get(), acknowledged[1], round)));
      ::_exit(1);
    }
    ::close(acknowledged[1]);
    unsigned last = 0;
    unsigned count = 0;
    if (round % 2 == 1) {
      const unsigned wanted = random() % 4;
      while (count < wanted && ::read(acknowledged[0], &last, sizeof last) == sizeof last) ++count;
      ::usleep(random() % 4000);  // to anywhere within the next ones
      ::kill(child, SIGKILL);
    }
    while (::read(acknowledged[0], &last, sizeof last) == sizeof last) ++count;
    ::close(acknowledged[0]);
    int status = 0;
    ::waitpid(child, &status, 0);
    ASSERT_TRUE(WIFSIGNALED(status));

    Runtime runtime;
    const auto budget = ByteBudget::make(runtime.next_loop(), 16 * kMiB);
    const auto store = ObjectStore::open(runtime, {.root = folder.path(), .bucket = "b"}, budget).value();
    const auto listed = run_blocking(store->list({}, "", "", 1000));
    ASSERT_TRUE(listed) << listed.error().describe();
    EXPECT_GE(listed->size(), count);
    EXPECT_LE(listed->size(), count + 1);  // one may have been stored and not yet acknowledged
    for (const ObjectInfo& info : *listed) {
      const auto i = static_cast<unsigned>(std::stoul(info.key.substr(2)));
      auto got = run_blocking(store->get({}, info.key, 0, std::nullopt));
      ASSERT_TRUE(got) << got.error().describe();
      const auto content = run_blocking(got->second.collect({}, 1UL << 30));
      ASSERT_TRUE(content) << content.error().describe();
      EXPECT_TRUE(content->view() == PatternSource::bytes(0, size_of(round, i), i));
    }
    const auto aborted = run_blocking(store->abort_uploads({}, "k/", wall_now() + std::chrono::hours(1)));
    ASSERT_TRUE(aborted);
    EXPECT_LE(*aborted, 1U);
    if (round % 2 == 0) {
      EXPECT_EQ(listed->size(), kVictim);
      EXPECT_EQ(*aborted, 1U);
    }
    for (const auto& path : tree(folder.path() + "/b/uploads")) EXPECT_FALSE(path.ends_with(".o")) << path;
  }
}

}  // namespace
}  // namespace prism::filesystem
