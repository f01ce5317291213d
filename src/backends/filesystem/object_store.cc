#include "backends/filesystem/object_store.h"

#include <fcntl.h>

#include <algorithm>
#include <vector>

#include "backends/filesystem/bucket.h"
#include "backends/filesystem/errors.h"
#include "base/crc32c.h"

namespace prism::filesystem {
namespace {

constexpr std::size_t kPiece = 1UL << 20;
constexpr std::size_t kMaxParts = 1024;  // of a piece: tiny ones are written before the piece is full

// What one write takes: what the payload gave, as it came.
struct Piece {
  std::vector<Bytes> parts;
  std::size_t bytes = 0;
  bool last = false;  // the payload has ended
};

Task<Result<Piece>> next_piece(Context context, Payload* payload) {
  Piece piece;
  while (piece.bytes < kPiece && piece.parts.size() < kMaxParts) {
    PRISM_CO_TRY(Bytes part, co_await payload->next(context, kPiece - piece.bytes));
    if (part.empty()) {
      piece.last = true;
      break;
    }
    piece.bytes += part.size();
    piece.parts.push_back(std::move(part));
  }
  co_return piece;
}

std::unexpected<Error> size_mismatch(const std::string& key, std::uint64_t said, std::uint64_t got) {
  return fail(Code::invalid_argument, "PAYLOAD_SIZE_MISMATCH",
              "the payload of '" + key + "' has " + std::to_string(got) + " bytes; it was announced with " +
                  std::to_string(said));
}

// Streams the payload into the upload and publishes it. Whatever it gives, nothing is running on the pool when it ends.
Task<Result<ObjectInfo>> store(Runtime& runtime, EventLoop& loop, std::shared_ptr<ByteBudget> budget, Context context,
                               const std::string* key, Payload* payload, Upload* upload) {
  const std::optional<std::uint64_t> announced = payload->size();
  const auto part = static_cast<std::size_t>(std::min<std::uint64_t>(kPiece, announced.value_or(kPiece)));
  PRISM_CO_TRY(const ByteBudget::Lease first, co_await budget->acquire(context, part));
  std::uint64_t total = 0;
  PRISM_CO_TRY(Piece piece, co_await next_piece(context, payload));
  while (true) {
    total += piece.bytes;
    if (announced && (total > *announced || (piece.last && total < *announced)))
      co_return size_mismatch(*key, *announced, total);
    if (context.stopped()) co_return fail(context.over(false));
    if (piece.last) break;
    OneShot<Result<void>> writing(&loop);
    runtime.files().submit([&] { resume_on_loop(writing.complete(upload->write(piece.parts))); });
    std::optional<Result<Piece>> next;
    // For the time of one write only: others may be waiting for their first.
    const auto second = budget->try_acquire(kPiece);
    if (second) next = co_await next_piece(context, payload);
    co_await writing.wait({});
    if (auto written = writing.take(); !written) co_return fail(std::move(written).error());
    piece = Piece();
    if (!next) next = co_await next_piece(context, payload);
    PRISM_CO_TRY(piece, std::move(*next));
  }
  // From here on it is not given up: it is a matter of one sync.
  co_return co_await offload(runtime.files(), loop, [&]() -> Result<ObjectInfo> {
    PRISM_CHECK(upload->write(piece.parts));
    piece = Piece();
    return upload->publish();
  });
}

class FileSource final : public ByteSource {
 public:
  // The bytes [at, end) of an object's file. `expected`: the checksum of all that is read, if it is known.
  FileSource(Runtime& runtime, std::shared_ptr<ByteBudget> read_ahead, Fd fd, std::string key, std::uint64_t at,
             std::uint64_t end, std::optional<std::uint32_t> expected)
      : runtime_(runtime),
        loop_(runtime.next_loop()),
        read_ahead_(std::move(read_ahead)),
        fd_(std::move(fd)),
        key_(std::move(key)),
        at_(at),
        end_(end),
        expected_(expected) {}

  // Of a removed object the blocks are freed now, which takes too long for a loop.
  ~FileSource() override {
    runtime_.files().submit([fd = std::move(fd_)] {});
  }

  Task<Result<Bytes>> next(Context context, std::size_t max) override {
    if (block_.empty() && at_ < end_) {
      if (context.stopped()) co_return fail(context.over(false));
      const std::uint64_t left = end_ - at_;
      const auto ahead = static_cast<std::size_t>(std::min<std::uint64_t>(kPiece, left));
      auto lease = ahead > max ? read_ahead_->try_acquire(ahead) : std::nullopt;
      const auto n = static_cast<std::size_t>(lease || max > kPiece ? ahead : std::min<std::uint64_t>(max, left));
      PRISM_CO_TRY(block_, co_await offload(runtime_.files(), loop_, [&] { return read(n, std::move(lease)); }));
    }
    Bytes out = block_.slice(0, max);
    block_ = block_.slice(out.size());
    if (block_.empty()) block_ = Bytes();  // lets go of it
    co_return out;
  }

 private:
  struct Block {
    std::unique_ptr<char[]> bytes;
    std::optional<ByteBudget::Lease> lease;
  };

  // On the pool.
  Result<Bytes> read(std::size_t n, std::optional<ByteBudget::Lease> lease) {
    auto block = std::make_shared<Block>(std::make_unique_for_overwrite<char[]>(n), std::move(lease));
    std::size_t got = 0;
    if (const int e = read_at(fd_.get(), block->bytes.get(), n, at_, got))
      return fail(error_of(e, "read the object", key_));
    if (got != n) return fail(object_damaged(key_, "its file was cut"));
    const std::string_view view(block->bytes.get(), n);
    at_ += n;
    if (expected_) {
      crc_ = crc32c(crc_, view);
      // The last bytes of a damaged object are never given out.
      if (at_ == end_ && crc_ != *expected_) return fail(object_damaged(key_, "its checksum is wrong"));
    }
    return Bytes(std::move(block), view);
  }

  Runtime& runtime_;
  EventLoop& loop_;
  const std::shared_ptr<ByteBudget> read_ahead_;
  Fd fd_;
  const std::string key_;
  std::uint64_t at_;  // read so far; the block is behind it
  const std::uint64_t end_;
  const std::optional<std::uint32_t> expected_;
  std::uint32_t crc_ = 0;
  Bytes block_;
};

}  // namespace

ObjectStore::ObjectStore(Runtime& runtime, std::unique_ptr<Bucket> bucket, std::shared_ptr<ByteBudget> budget)
    : runtime_(runtime),
      bucket_(std::move(bucket)),
      budget_(std::move(budget)),
      read_ahead_(budget_->share(budget_->limit() / 4)) {}

ObjectStore::~ObjectStore() = default;

Result<std::shared_ptr<ObjectStore>> ObjectStore::open(Runtime& runtime, const Options& options,
                                                       std::shared_ptr<ByteBudget> budget) {
  PRISM_TRY(auto bucket, Bucket::open(options.root, options.bucket));
  return std::shared_ptr<ObjectStore>(new ObjectStore(runtime, std::move(bucket), std::move(budget)));
}

const ObjectFeatures& ObjectStore::features() const noexcept {
  static constexpr ObjectFeatures features{.durability = Durability::fsync, .lifecycle = false};
  return features;
}

Task<Result<ObjectInfo>> ObjectStore::put(Context context, std::string key, Payload payload, PutOptions options) {
  PRISM_CO_CHECK(check_key(key));
  EventLoop& loop = runtime_.next_loop();
  Upload upload(*bucket_, key, std::move(options));
  auto stored = co_await store(runtime_, loop, budget_, std::move(context), &key, &payload, &upload);
  if (!stored) co_await offload(runtime_.files(), loop, [&] { upload.discard(); });
  co_return stored;
}

Task<Result<std::pair<ObjectInfo, Payload>>> ObjectStore::get(Context context, std::string key, std::uint64_t from,
                                                              std::optional<std::uint64_t> n) {
  PRISM_CO_CHECK(check_key(key));
  if (context.stopped()) co_return fail(context.over(false));
  PRISM_CO_TRY(auto found, co_await offload(runtime_.files(), runtime_.next_loop(), [&] {
                 auto opened = bucket_->find(key);
                 if (opened) ::posix_fadvise(opened->first.get(), 0, 0, POSIX_FADV_SEQUENTIAL);
                 return opened;
               }));
  auto& [fd, info] = found;
  if (from > info.size) {
    co_return fail(
        Code::out_of_range, "RANGE_NOT_SATISFIABLE",
        "the object '" + key + "' has " + std::to_string(info.size) + " bytes; none at " + std::to_string(from));
  }
  const std::uint64_t length = std::min(n.value_or(info.size), info.size - from);
  const bool whole = length == info.size;
  auto source = std::make_unique<FileSource>(runtime_, read_ahead_, std::move(fd), std::move(key), from, from + length,
                                             whole ? std::optional(info.crc32c) : std::nullopt);
  co_return std::pair(std::move(info), Payload(std::move(source), length));
}

Task<Result<ObjectInfo>> ObjectStore::head(Context context, std::string key) {
  PRISM_CO_CHECK(check_key(key));
  if (context.stopped()) co_return fail(context.over(false));
  co_return co_await offload(runtime_.files(), runtime_.next_loop(), [&]() -> Result<ObjectInfo> {
    PRISM_TRY(auto found, bucket_->find(key));
    return std::move(found.second);
  });
}

Task<Batch<Result<void>>> ObjectStore::remove(Context context, Batch<std::string> keys) {
  co_return co_await offload(runtime_.files(), runtime_.next_loop(), [&] { return bucket_->remove(keys, context); });
}

Task<Result<Batch<ObjectInfo>>> ObjectStore::list(Context context, std::string prefix, std::string after,
                                                  std::size_t max) {
  co_return co_await offload(runtime_.files(), runtime_.next_loop(),
                             [&] { return bucket_->list(prefix, after, max, context); });
}

Task<Result<std::size_t>> ObjectStore::abort_uploads(Context context, std::string prefix, WallTime older_than) {
  co_return co_await offload(runtime_.files(), runtime_.next_loop(),
                             [&] { return bucket_->abort_uploads(prefix, older_than, context); });
}

Task<void> ObjectStore::close(Context /*context*/) { co_return; }

}  // namespace prism::filesystem
