#include "backends/s3/object_store.h"

#include <algorithm>
#include <span>

#include "backends/client/backoff.h"
#include "backends/s3/upload.h"
#include "base/crc32c.h"
#include "base/ids.h"
#include "base/text.h"
#include "telemetry/log.h"

namespace prism::s3 {
namespace {

using namespace std::chrono_literals;

constexpr std::size_t kWindow = 1UL << 20;
constexpr std::size_t kMaxKeys = 1000;  // of one list, and of one removal

std::string range_text(std::uint64_t from, std::optional<std::uint64_t> end) {
  return "bytes=" + std::to_string(from) + "-" + (end ? std::to_string(*end - 1) : "");
}

std::unexpected<Error> not_satisfiable(const std::string& key, std::uint64_t size, std::uint64_t from) {
  return fail(
      Code::out_of_range, "RANGE_NOT_SATISFIABLE",
      "the object '" + shown(key) + "' has " + std::to_string(size) + " bytes; none at " + std::to_string(from));
}

// The longest part of it, from its beginning, that is UTF-8.
std::string_view utf8_part(std::string_view text) {
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t n = utf8_sequence(text.substr(at));
    if (n == 0) return text.substr(0, at);
    at += n;
  }
  return text;
}

// The bytes [at, end) of one state of an object.
class Download final : public ByteSource {
 public:
  struct What {
    std::string bucket, key, etag;
    std::uint64_t at = 0, end = 0;
    std::optional<std::uint32_t> expected;  // the checksum of all that is read, where it is known
  };
  Download(std::shared_ptr<Client> client, What what, std::unique_ptr<Exchange> exchange,
           std::optional<ByteBudget::Lease> lease)
      : client_(std::move(client)), what_(std::move(what)), exchange_(std::move(exchange)), lease_(std::move(lease)) {
    if (exchange_ && lease_) exchange_->set_window(kWindow);
  }

  Task<Result<Bytes>> next(Context context, std::size_t max) override {
    client::Backoff backoff(client_->options().retry.backoff, client_->options().retry.max_backoff);
    while (what_.at < what_.end) {
      if (context.stopped()) co_return fail(context.over(false));
      Result<Bytes> piece;
      if (!exchange_) {
        if (auto reopened = co_await open(context); !reopened) co_return fail(std::move(reopened).error());
      }
      piece = co_await exchange_->read(context,
                                       static_cast<std::size_t>(std::min<std::uint64_t>(max, what_.end - what_.at)));
      if (piece && !piece->empty()) {
        what_.at += piece->size();
        if (what_.expected) crc_ = crc32c(crc_, piece->view());
        if (what_.at == what_.end) {
          // To the answer's end, so that the connection can be used again.
          static_cast<void>(co_await exchange_->read(context, 1));
          exchange_.reset();
          // The last bytes of a damaged object are never given out.
          if (what_.expected && crc_ != *what_.expected) {
            co_return fail(Code::data_loss, "OBJECT_DAMAGED",
                           "the object '" + shown(what_.key) + "' is damaged: its checksum is wrong");
          }
        }
        co_return piece;
      }
      // Cut: gone on with from here, if it still is the same object.
      exchange_.reset();
      if (context.stopped()) co_return fail(context.over(false));
      if (backoff.tries() + 1 >= client_->options().retry.attempts) {
        if (!piece) co_return fail(std::move(piece).error());
        co_return fail(client_->protocol_error("whole answer", Retry::safe));
      }
      if (!co_await sleep_for(client_->loop(), context, backoff.next())) co_return fail(context.over(false));
    }
    co_return Bytes();
  }

 private:
  Task<Result<void>> open(Context context) {
    auto opened = co_await client_->open(
        std::move(context),
        Call{.method = "GET",
             .bucket = what_.bucket,
             .key = what_.key,
             .headers = {{"range", range_text(what_.at, what_.end)}, {"if-match", "\"" + what_.etag + "\""}},
             .read_only = true});
    if (opened && opened->head.status == 206) {
      exchange_ = std::move(opened->exchange);
      if (lease_) exchange_->set_window(kWindow);
      co_return Result<void>();
    }
    if (opened) co_return fail(client_->protocol_error("range of an object", Retry::never));
    const std::string& reason = opened.error().reason;
    if (reason == "PRECONDITION_FAILED" || reason == "OBJECT_NOT_FOUND") {
      co_return fail(Code::aborted, "OBJECT_CHANGED",
                     "the object '" + shown(what_.key) + "' was replaced or removed while it was read",
                     "read it again");
    }
    co_return fail(std::move(opened).error());
  }

  const std::shared_ptr<Client> client_;
  What what_;
  std::unique_ptr<Exchange> exchange_;
  std::optional<ByteBudget::Lease> lease_;
  std::uint32_t crc_ = 0;
};

}  // namespace

ObjectStore::ObjectStore(std::shared_ptr<Client> client, std::string bucket, std::shared_ptr<ByteBudget> budget)
    : client_(std::move(client)),
      bucket_(std::move(bucket)),
      budget_(std::move(budget)),
      read_ahead_(budget_->share(budget_->limit() / 4)),
      features_{.durability = client_->options().endpoint ? Durability::fsync : Durability::replicated} {}

ObjectStore::~ObjectStore() = default;

Task<Result<ObjectInfo>> ObjectStore::put(Context context, std::string key, Payload payload, PutOptions options) {
  PRISM_CO_CHECK(check_key(key));
  Upload upload(*this, std::move(key), std::move(payload), std::move(options));
  co_return co_await upload.run(std::move(context));
}

Task<Result<std::pair<ObjectInfo, Payload>>> ObjectStore::get(Context context, std::string key, std::uint64_t from,
                                                              std::optional<std::uint64_t> n) {
  PRISM_CO_CHECK(check_key(key));
  using Got = std::pair<ObjectInfo, Payload>;
  const bool whole = from == 0 && !n;
  std::optional<Opened> opened;
  if (whole || n.value_or(1) > 0) {
    Call call{
        .method = "GET", .bucket = bucket_, .key = key, .query = {}, .headers = {}, .body = {}, .read_only = true};
    if (whole) {
      call.headers.emplace_back("x-amz-checksum-mode", "ENABLED");  // of a range it might be that of a part
    } else {
      const bool bounded = n && *n <= ~std::uint64_t{0} - from;
      call.headers.emplace_back("range", range_text(from, bounded ? std::optional(from + *n) : std::nullopt));
    }
    auto got = co_await client_->open(context, std::move(call));
    if (got) {
      opened = std::move(*got);
    } else if (got.error().reason != "RANGE_NOT_SATISFIABLE") {
      co_return fail(std::move(got).error());
    }
  }
  if (!opened) {  // nothing of it is asked for, or there is nothing there
    PRISM_CO_TRY(ObjectInfo info, co_await head(context, key));
    if (from > info.size) co_return not_satisfiable(key, info.size, from);
    if (from < info.size && n.value_or(1) > 0)
      co_return fail(client_->protocol_error("range of an object that has it", Retry::safe));
    co_return Got(std::move(info), Payload());
  }
  Stored stored = stored_of(key, opened->head);
  const std::uint64_t size = stored.info.size;
  if (from > size) co_return not_satisfiable(key, size, from);
  if (from > 0 && opened->head.status != 206)
    co_return fail(client_->protocol_error("range of an object", Retry::never));
  const std::uint64_t length = std::min(n.value_or(size), size - from);
  Download::What what{.bucket = bucket_,
                      .key = std::move(key),
                      .etag = stored.info.etag,
                      .at = from,
                      .end = from + length,
                      .expected = length == size ? stored.checksum : std::nullopt};
  auto lease = length > kWindow / 4
                   ? read_ahead_->try_acquire(static_cast<std::size_t>(std::min<std::uint64_t>(kWindow, length)))
                   : std::nullopt;
  auto source = std::make_unique<Download>(client_, std::move(what), std::move(opened->exchange), std::move(lease));
  co_return Got(std::move(stored.info), Payload(std::move(source), length));
}

Task<Result<ObjectInfo>> ObjectStore::head(Context context, std::string key) {
  PRISM_CO_CHECK(check_key(key));
  PRISM_CO_TRY(const auto answer,
               co_await client_->call(std::move(context), Call{.method = "HEAD",
                                                               .bucket = bucket_,
                                                               .key = key,
                                                               .headers = {{"x-amz-checksum-mode", "ENABLED"}},
                                                               .read_only = true}));
  co_return std::move(stored_of(std::move(key), answer.head).info);
}

Task<Result<void>> ObjectStore::remove_one(Context context, std::string key, std::string if_match) {
  Call call{.method = "DELETE", .bucket = bucket_, .key = std::move(key)};
  if (!if_match.empty()) call.headers.emplace_back("if-match", "\"" + if_match + "\"");
  auto removed = co_await client_->call(std::move(context), std::move(call));
  if (!removed && removed.error().reason != "OBJECT_NOT_FOUND") co_return fail(std::move(removed).error());
  co_return Result<void>();
}

Task<bool> ObjectStore::removes_conditionally(Context context, std::string beside) {
  {
    const std::lock_guard lock(mutex_);
    if (conditional_removals_) co_return *conditional_removals_;
  }
  // With a condition that does not hold, of an object that nobody misses.
  const std::string probe = beside.substr(0, beside.rfind('/') + 1) + "probe-" + uuid7();
  const auto made = co_await client_->call(context, Call{.method = "PUT", .bucket = bucket_, .key = probe});
  if (!made) co_return false;
  const auto refused = co_await remove_one(context, probe, "00000000000000000000000000000000");
  static_cast<void>(co_await remove_one(context, probe));
  const bool heeded = !refused && refused.error().reason == "PRECONDITION_FAILED";
  const bool known = heeded || refused || refused.error().reason == "STORAGE_UNSUPPORTED";
  const std::lock_guard lock(mutex_);
  if (known) conditional_removals_ = heeded;
  co_return heeded;
}

Task<bool> ObjectStore::remove_if(Context context, std::string key, std::string etag) {
  if (!co_await removes_conditionally(context, key)) co_return false;
  const auto removed = co_await remove_one(std::move(context), std::move(key), std::move(etag));
  co_return removed.has_value();
}

Task<Result<std::vector<NotDeleted>>> ObjectStore::remove_some(Context context, std::vector<std::string> keys) {
  std::string body = write_delete(keys);
  HeaderList headers{{"content-md5", md5_base64(body)}, {"content-type", "application/xml"}};
  PRISM_CO_TRY(const auto answer, co_await client_->call(std::move(context), Call{.method = "POST",
                                                                                  .bucket = bucket_,
                                                                                  .key = {},
                                                                                  .query = {{"delete", ""}},
                                                                                  .headers = std::move(headers),
                                                                                  .body = {Bytes(std::move(body))},
                                                                                  .sign_body = true}));
  auto failed = read_deleted(answer.body);
  if (!failed) co_return fail(client_->protocol_error("list of what was removed", Retry::safe));
  co_return std::move(*failed);
}

Task<Batch<Result<void>>> ObjectStore::remove(Context context, Batch<std::string> keys) {
  Batch<Result<void>> out(keys.size());
  std::vector<std::size_t> together;  // indices; of one request
  for (std::size_t i = 0; i < keys.size(); ++i) {
    if (auto good = check_key(keys[i]); !good) {
      out[i] = std::move(good);
      continue;
    }
    // XML has no control characters.
    const bool alone = std::ranges::any_of(keys[i], [](char c) { return c >= 0 && c < 0x20; });
    if (alone) {
      out[i] = co_await remove_one(context, keys[i]);
    } else {
      together.push_back(i);
    }
  }
  for (std::size_t from = 0; from < together.size(); from += kMaxKeys) {
    const auto some = std::span(together).subspan(from, std::min(kMaxKeys, together.size() - from));
    if (some.size() == 1) {
      out[some[0]] = co_await remove_one(context, keys[some[0]]);
      continue;
    }
    std::vector<std::string> names;
    for (const std::size_t i : some) names.push_back(keys[i]);
    const auto failed = co_await remove_some(context, std::move(names));
    for (const std::size_t i : some) {
      if (!failed) {
        out[i] = fail(failed.error());
        continue;
      }
      const auto it = std::ranges::find(*failed, keys[i], &NotDeleted::key);
      if (it == failed->end()) continue;
      Error error = error_of({.status = 0, .code = it->code, .message = made_visible(it->message), .region = {}},
                             {client_->peer(), bucket_, keys[i]});
      if (error.reason != "OBJECT_NOT_FOUND") out[i] = fail(std::move(error));
    }
  }
  co_return out;
}

Task<Result<Batch<ObjectInfo>>> ObjectStore::list(Context context, std::string prefix, std::string after,
                                                  std::size_t max) {
  Batch<ObjectInfo> out;
  if (context.stopped()) co_return fail(context.over(false));
  std::string continuation;
  // Servers take text only; what that leaves in is taken out here.
  const std::string asked_prefix(utf8_part(prefix));
  const std::string asked_after(utf8_part(after));
  while (out.size() < max) {
    Call call{.method = "GET",
              .bucket = bucket_,
              .key = {},
              .query = {{"list-type", "2"},
                        {"encoding-type", "url"},
                        {"max-keys", std::to_string(std::min(max - out.size(), kMaxKeys))}},
              .headers = {},
              .body = {},
              .read_only = true};
    if (!asked_prefix.empty()) call.query.emplace_back("prefix", asked_prefix);
    if (!continuation.empty()) {
      call.query.emplace_back("continuation-token", continuation);
    } else if (!asked_after.empty()) {
      call.query.emplace_back("start-after", asked_after);
    }
    PRISM_CO_TRY(const auto answer, co_await client_->call(context, std::move(call)));
    auto page = read_list(answer.body);
    if (!page) co_return fail(client_->protocol_error("list of objects", Retry::safe));
    for (ObjectInfo& info : page->objects) {
      if (check_key(info.key) && info.key.starts_with(prefix) && info.key > after) out.push_back(std::move(info));
    }
    continuation = std::move(page->continuation);
    if (continuation.empty()) break;
  }
  co_return out;
}

Task<Result<std::size_t>> ObjectStore::abort_uploads(Context context, std::string prefix, WallTime older_than) {
  std::size_t aborted = 0;
  std::string after_key;
  std::string after_id;
  while (true) {
    Call call{.method = "GET",
              .bucket = bucket_,
              .key = {},
              .query = {{"uploads", ""}, {"encoding-type", "url"}},
              .headers = {},
              .body = {},
              .read_only = true};
    if (!prefix.empty()) call.query.emplace_back("prefix", prefix);
    if (!after_key.empty()) call.query.emplace_back("key-marker", after_key);
    if (!after_id.empty()) call.query.emplace_back("upload-id-marker", after_id);
    PRISM_CO_TRY(const auto answer, co_await client_->call(context, std::move(call)));
    auto page = read_uploads(answer.body);
    if (!page) co_return fail(client_->protocol_error("list of uploads", Retry::safe));
    for (PendingUpload& upload : page->uploads) {
      if (upload.begun >= older_than || !upload.key.starts_with(prefix)) continue;
      {
        const std::lock_guard lock(mutex_);
        if (uploads_.contains(upload.id)) continue;
      }
      auto removed = co_await client_->call(
          context,
          Call{
              .method = "DELETE", .bucket = bucket_, .key = std::move(upload.key), .query = {{"uploadId", upload.id}}});
      if (removed) {
        ++aborted;
      } else if (removed.error().reason != "UPLOAD_ABORTED" && removed.error().reason != "OBJECT_NOT_FOUND") {
        co_return fail(std::move(removed).error());
      }
    }
    if (!page->more || (page->next_key == after_key && page->next_id == after_id)) break;
    after_key = std::move(page->next_key);
    after_id = std::move(page->next_id);
  }
  co_return aborted;
}

Task<Result<void>> ObjectStore::check(Context context) {
  PRISM_CO_CHECK(co_await client_->check(context, bucket_));
  const std::uint32_t days = client_->options().abort_uploads_after;
  if (days == 0 || lifecycle_seen_to_.exchange(true)) co_return Result<void>();
  const LifecycleRule wanted{.id = "prism-unfinished-uploads", .prefix = {}, .abort_uploads_after_days = days};
  Result<void> set;
  if (const auto rules = co_await lifecycle(context); !rules) {
    set = fail(rules.error());
  } else if (std::ranges::find(*rules, wanted) == rules->end()) {
    set = co_await set_lifecycle(context, wanted);
  }
  // Prism can do without.
  if (!set) {
    log::warn("the life cycle of a bucket could not be set", {{"backend", client_->peer().backend},
                                                              {"bucket", bucket_},
                                                              {"reason", set.error().reason},
                                                              {"error", set.error().message}});
  }
  co_return Result<void>();
}

Task<Result<std::string>> ObjectStore::lifecycle_document(Context context) {
  auto answer = co_await client_->call(std::move(context), Call{.method = "GET",
                                                                .bucket = bucket_,
                                                                .key = {},
                                                                .query = {{"lifecycle", ""}},
                                                                .headers = {},
                                                                .body = {},
                                                                .read_only = true});
  if (answer) co_return std::move(answer->body);
  if (answer.error().reason == "LIFECYCLE_NOT_FOUND") co_return std::string();
  co_return fail(std::move(answer).error());
}

Task<Result<std::vector<LifecycleRule>>> ObjectStore::lifecycle(Context context) {
  PRISM_CO_TRY(const std::string document, co_await lifecycle_document(std::move(context)));
  if (document.empty()) co_return std::vector<LifecycleRule>();
  auto rules = read_lifecycle(document);
  if (!rules) co_return fail(client_->protocol_error("life cycle", Retry::safe));
  co_return std::move(*rules);
}

Task<Result<void>> ObjectStore::set_lifecycle(Context context, LifecycleRule rule) {
  PRISM_CO_TRY(const std::string document, co_await lifecycle_document(context));
  auto body = with_rule(document, rule);
  if (!body) co_return fail(client_->protocol_error("life cycle", Retry::safe));
  HeaderList headers{{"content-md5", md5_base64(*body)}, {"content-type", "application/xml"}};
  auto set = co_await client_->call(std::move(context), Call{.method = "PUT",
                                                             .bucket = bucket_,
                                                             .key = {},
                                                             .query = {{"lifecycle", ""}},
                                                             .headers = std::move(headers),
                                                             .body = {Bytes(std::move(*body))},
                                                             .sign_body = true});
  if (!set) co_return fail(std::move(set).error());
  co_return Result<void>();
}

Task<void> ObjectStore::close(Context /*context*/) { co_return; }

}  // namespace prism::s3
