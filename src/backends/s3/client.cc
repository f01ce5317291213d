#include "backends/s3/client.h"

#include "backends/client/backoff.h"

namespace prism::s3 {
namespace {

constexpr std::size_t kMaxAnswer = 64UL << 20;
constexpr std::size_t kMaxRefusal = 64UL << 10;

HttpOptions http_options(const Options& options, const Endpoint& endpoint, const client::Peer& peer) {
  HttpOptions out{.peer = peer, .tls = {}, .pool = options.pool, .timeouts = options.timeouts, .connect_to = {}};
  if (endpoint.encrypted()) out.tls = options.tls.value_or(client::TlsOptions());
  out.connect_to = endpoint.connect_to();
  return out;
}

// May it be tried again? Where a server has too much to do it may, after a while: S3 asks for just that.
bool may_repeat(const Error& error, const Call& call) {
  if (call.fed || error.code == Code::cancelled || error.reason == "BACKEND_OVERLOADED") return false;
  return error.retry == Retry::safe || (error.retry == Retry::unknown_outcome && call.repeatable);
}

}  // namespace

Client::Client(Runtime& runtime, Options options, std::string name)
    : options_(std::move(options)),
      endpoint_(options_),
      peer_{.backend = std::move(name), .system = "S3", .address = endpoint_.address()},
      credentials_(credentials_of(options_)),
      region_(region_of(options_)),
      breaker_(options_.breaker),
      http_(runtime.next_loop(), http_options(options_, endpoint_, peer_)) {
  if (credentials_) signer_.emplace(*credentials_, region_);
}

HttpRequest Client::request_of(const Call& call) const {
  const Location location = endpoint_.of(call.bucket);
  const std::string path = location.path + uri_encode(call.key, true);
  const std::string query = canonical_query(call.query);
  HttpRequest request;
  request.method = call.method;
  request.url = location.origin + path + (query.empty() ? "" : "?" + query);
  request.headers = call.headers;
  request.body = call.body;
  request.fed = call.fed;
  request.headers.emplace_back("host", location.host);
  std::string payload(kUnsignedPayload);
  if (!call.fed && (call.sign_body || options_.sign_payload || call.body.empty())) {
    std::string all;
    for (const Bytes& piece : call.body) all += piece.view();
    payload = hex(sha256(all));
  }
  bool given = false;
  for (const auto& [header, value] : call.headers) {
    if (header != "x-amz-content-sha256") continue;
    payload = value;
    given = true;
  }
  if (!given) request.headers.emplace_back("x-amz-content-sha256", payload);
  signer_->sign(request.method, path, query, request.headers, payload, wall_now());
  return request;
}

Task<Error> Client::refused(Context context, const HttpHead* head, Exchange* exchange, const Call* call) {
  std::string body;
  while (body.size() < kMaxRefusal) {
    const auto piece = co_await exchange->read(context, kMaxRefusal - body.size());
    if (!piece || piece->empty()) break;
    body += piece->view();
  }
  co_return error_of(refusal_of(*head, body), Asked{peer_, call->bucket, call->key});
}

Task<Result<Opened>> Client::try_once(Context context, const Call* call) {
  if (!signer_) {
    co_return fail(client::authentication_failed(
        peer_, "neither the options nor the environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY) have any"));
  }
  PRISM_CO_TRY(auto exchange, co_await http_.begin(context, request_of(*call)));
  if (call->fed) co_return Opened{{}, std::move(exchange)};
  PRISM_CO_TRY(auto head, co_await exchange->head(context));
  if (head.status < 200 || head.status > 299) co_return fail(co_await refused(context, &head, exchange.get(), call));
  co_return Opened{std::move(head), std::move(exchange)};
}

Task<Result<Answer>> Client::call_once(Context context, const Call* call) {
  PRISM_CO_TRY(auto opened, co_await try_once(context, call));
  Answer answer{std::move(opened.head), {}, false};
  while (true) {
    PRISM_CO_TRY(const Bytes piece, co_await opened.exchange->read(context, kMaxAnswer));
    if (piece.empty()) break;
    if (answer.body.size() + piece.size() > kMaxAnswer)
      co_return fail(client::protocol_error(peer_, "an answer of more than 64 MiB", Retry::never));
    answer.body += piece.view();
  }
  // Of some operations the head is sent before it is known how they end.
  if (call->method == "POST" && answer.body.size() < kMaxRefusal) {
    const Refusal refusal = refusal_of(answer.head, answer.body);
    if (!refusal.code.starts_with("HTTP ")) co_return fail(error_of(refusal, Asked{peer_, call->bucket, call->key}));
  }
  co_return answer;
}

template <class T>
Task<Result<T>> Client::repeated(Context context, const Call* call,
                                 Task<Result<T>> (Client::*once)(Context, const Call*)) {
  client::Backoff backoff(options_.retry.backoff, options_.retry.max_backoff);
  bool maybe_done = false;
  bool bucket_made = false;
  for (std::uint32_t attempt = 1;; ++attempt) {
    if (context.stopped()) co_return fail(context.over(maybe_done && !call->read_only));
    Result<T> result = fail(Code::internal, "STORAGE_ERROR", "");
    if (auto admitted = breaker_.admit(); !admitted) {
      if (maybe_done) admitted.error().retry = Retry::unknown_outcome;
      co_return fail(std::move(admitted).error());
    } else {
      result = co_await (this->*once)(context, call);
      breaker_.done(result);
    }
    if (result) {
      if constexpr (std::is_same_v<T, Answer>) result->repeated = maybe_done;
      co_return result;
    }
    Error& error = result.error();
    const bool makes_bucket = call->method == "PUT" && call->key.empty() && call->query.empty();
    if (error.reason == "BUCKET_MISSING" && options_.create_bucket && !bucket_made && !makes_bucket) {
      bucket_made = true;
      PRISM_CO_CHECK(co_await create_bucket(context, call->bucket));
      continue;
    }
    if (error.retry == Retry::unknown_outcome) {
      if (call->read_only) {
        error.retry = Retry::safe;
      } else {
        maybe_done = true;
      }
    }
    if (!may_repeat(error, *call) || attempt >= options_.retry.attempts) {
      if (maybe_done && error.retry == Retry::safe) error.retry = Retry::unknown_outcome;
      if (error.reason == "BACKEND_UNAVAILABLE" && !call->body.empty()) {
        // Some close the connection upon a large body that they refuse, and their answer is lost: ask without a body.
        const Call probe{
            .method = "GET", .bucket = {}, .key = {}, .query = {}, .headers = {}, .body = {}, .read_only = true};
        const auto asked = co_await try_once(context, &probe);
        if (!asked && client::needs_operator(asked.error())) {
          breaker_.done(asked);
          co_return fail(asked.error());
        }
      }
      co_return result;
    }
    const Clock::duration wait = std::max<Clock::duration>(backoff.next(), error.retry_after);
    if (context.deadline() != Clock::time_point::max() && Clock::now() + wait >= context.deadline()) co_return result;
    if (!co_await sleep_for(loop(), context, wait)) co_return fail(context.over(maybe_done));
  }
}

Task<Result<Answer>> Client::call(Context context, Call call) {
  co_return co_await repeated<Answer>(std::move(context), &call, &Client::call_once);
}

Task<Result<Opened>> Client::open(Context context, Call call) {
  co_return co_await repeated<Opened>(std::move(context), &call, &Client::try_once);
}

Task<Result<void>> Client::create_bucket(Context context, std::string bucket) {
  Call call{.method = "PUT", .bucket = std::move(bucket), .sign_body = true};
  if (region_ != "us-east-1") call.body.emplace_back(write_location(region_));
  auto made = co_await this->call(std::move(context), std::move(call));
  if (made || made.error().reason == "BUCKET_EXISTS") co_return Result<void>();
  co_return fail(std::move(made).error());
}

Task<Result<void>> Client::check(Context context, std::string bucket) {
  const bool any = bucket.empty();
  auto answer = co_await call(std::move(context),
                              Call{.method = any ? "GET" : "HEAD", .bucket = std::move(bucket), .read_only = true});
  // A key for one bucket may not list them all; its signature was good.
  if (answer || (any && answer.error().reason == "BACKEND_PERMISSION_DENIED")) co_return Result<void>();
  co_return fail(std::move(answer).error());
}

}  // namespace prism::s3
