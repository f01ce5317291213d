#include "capabilities/traced.h"

#include <utility>

namespace prism {
namespace {

std::string span_name(const Engine& engine, std::string_view operation) {
  std::string name = engine.system;
  name += '.';
  name += operation;
  return name;
}

void describe(trace::Span& span, const Engine& engine) {
  span.set("prism.backend", engine.backend);
  if (!engine.twin.empty()) span.set("prism.backend.twin", engine.twin);
}

// The names that OpenTelemetry gives databases differ from those of the files.
std::string db_system(const std::string& system) { return system == "postgres" ? "postgresql" : system; }

// The span ends with the payload.
class TracedSource final : public ByteSource {
 public:
  TracedSource(Payload payload, trace::Span span) : payload_(std::move(payload)), span_(std::move(span)) {}
  ~TracedSource() override { end(); }

  Task<Result<Bytes>> next(Context context, std::size_t max) override {
    auto piece = co_await payload_.next(std::move(context), max);
    if (!piece) {
      span_.fail(piece.error());
      end();
    } else if (piece->empty()) {
      end();
    } else {
      read_ += piece->size();
    }
    co_return piece;
  }

 private:
  void end() {
    if (!span_) return;
    span_.set("prism.bytes", read_);
    span_.end();
  }

  Payload payload_;
  trace::Span span_;
  std::uint64_t read_ = 0;
};

class TracedObjectStore final : public ObjectStore {
 public:
  TracedObjectStore(std::shared_ptr<ObjectStore> inner, Engine engine, std::string bucket)
      : inner_(std::move(inner)), engine_(std::move(engine)), bucket_(std::move(bucket)) {}

  const ObjectFeatures& features() const noexcept override { return inner_->features(); }

  Task<Result<ObjectInfo>> put(Context context, std::string key, Payload payload, PutOptions options) override {
    if (!context.trace().recorded)
      return inner_->put(std::move(context), std::move(key), std::move(payload), std::move(options));
    return traced_put(std::move(context), std::move(key), std::move(payload), std::move(options));
  }
  Task<Result<std::pair<ObjectInfo, Payload>>> get(Context context, std::string key, std::uint64_t from,
                                                   std::optional<std::uint64_t> n) override {
    if (!context.trace().recorded) return inner_->get(std::move(context), std::move(key), from, n);
    return traced_get(std::move(context), std::move(key), from, n);
  }
  Task<Result<ObjectInfo>> head(Context context, std::string key) override {
    return inner_->head(std::move(context), std::move(key));
  }
  Task<Batch<Result<void>>> remove(Context context, Batch<std::string> keys) override {
    return inner_->remove(std::move(context), std::move(keys));
  }
  Task<Result<Batch<ObjectInfo>>> list(Context context, std::string prefix, std::string after,
                                       std::size_t max) override {
    return inner_->list(std::move(context), std::move(prefix), std::move(after), max);
  }
  Task<Result<std::size_t>> abort_uploads(Context context, std::string prefix, WallTime older_than) override {
    return inner_->abort_uploads(std::move(context), std::move(prefix), older_than);
  }
  Task<void> close(Context context) override { return inner_->close(std::move(context)); }

 private:
  trace::Span begin(const Context& context, std::string_view operation, std::string_view method,
                    const std::string& key) const {
    trace::Span span = begin_span(context, engine_, operation, trace::Kind::client);
    if (engine_.system == "s3") {
      span.set("rpc.system", "aws-api");
      span.set("rpc.service", "S3");
      span.set("rpc.method", method);
      span.set("aws.s3.bucket", bucket_);
      span.set("aws.s3.key", key);
    } else {
      span.set("prism.bucket", bucket_);
      span.set("prism.object", key);
    }
    return span;
  }

  Task<Result<ObjectInfo>> traced_put(Context context, std::string key, Payload payload, PutOptions options) {
    trace::Span span = begin(context, "put_object", "PutObject", key);
    auto stored = co_await inner_->put(span.context(context), std::move(key), std::move(payload), std::move(options));
    if (stored) {
      span.set("prism.bytes", stored->size);
    } else {
      span.fail(stored.error());
    }
    co_return stored;
  }

  Task<Result<std::pair<ObjectInfo, Payload>>> traced_get(Context context, std::string key, std::uint64_t from,
                                                          std::optional<std::uint64_t> n) {
    trace::Span span = begin(context, "get_object", "GetObject", key);
    auto opened = co_await inner_->get(span.context(context), std::move(key), from, n);
    if (!opened) {
      span.fail(opened.error());
      co_return opened;
    }
    auto& [info, payload] = *opened;
    const auto size = payload.size();
    payload = Payload(std::make_unique<TracedSource>(std::move(payload), std::move(span)), size);
    co_return opened;
  }

  std::shared_ptr<ObjectStore> inner_;
  const Engine engine_;
  const std::string bucket_;
};

}  // namespace

trace::Span begin_span(const Context& context, const Engine& engine, std::string_view operation, trace::Kind kind) {
  if (!context.trace().recorded) return {};
  trace::Span span = trace::Span::begin(context, span_name(engine, operation), trace::Layer::backend, kind);
  describe(span, engine);
  return span;
}

trace::Span resume_span(const TraceContext& parent, const Engine& engine, std::string_view operation,
                        trace::Kind kind) {
  if (!trace::recording(parent)) return {};
  trace::Span span = trace::Span::resume(parent, span_name(engine, operation), kind);
  describe(span, engine);
  return span;
}

trace::Span begin_db_span(const Context& context, const Engine& engine, std::string_view step) {
  if (!context.trace().recorded) return {};
  trace::Span span =
      trace::Span::begin(context, std::string("db.") + std::string(step), trace::Layer::backend, trace::Kind::client);
  span.set("db.system.name", db_system(engine.system));
  span.set("db.operation.name", step);
  describe(span, engine);
  return span;
}

std::shared_ptr<ObjectStore> traced(std::shared_ptr<ObjectStore> store, Engine engine, std::string bucket) {
  if (store == nullptr) return store;
  return std::make_shared<TracedObjectStore>(std::move(store), std::move(engine), std::move(bucket));
}

}  // namespace prism
