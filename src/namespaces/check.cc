#include "namespaces/check.h"

#include <algorithm>
#include <map>

#include "namespaces/health.h"
#include "namespaces/summary.h"
#include "runtime/scope.h"

namespace prism {
namespace {

constexpr Clock::duration kClosePatience = std::chrono::seconds(3);

Task<BackendAnswer> ask_one(Context context, BackendAnswer answer, const BackendType* type, const BackendSpec* spec,
                            Runtime* runtime, Clock::duration patience) {
  const auto begun = Clock::now();
  auto made = co_await type->connect(context.with_timeout(patience), *runtime, answer.name, spec->options);
  if (!made) {
    answer.error = std::move(made).error().with("backend", answer.name);
  } else {
    answer.description = (*made)->describe();
    const auto open =
        std::make_shared<OpenBackend>(answer.name, "", std::move(*made), 0, Engine{answer.type, answer.name, {}},
                                      std::make_unique<BackendHealth>(answer.name, nullptr));
    if (auto said = co_await ask(context, open, patience, patience); !said) answer.error = std::move(said).error();
    co_await open->backend->close(Context().with_timeout(kClosePatience));
  }
  answer.took = Clock::now() - begun;
  co_return answer;
}

Task<BackendAnswer> refused(BackendAnswer answer, Error error) {
  answer.error = std::move(error);
  co_return answer;
}

}  // namespace

Task<std::vector<BackendAnswer>> check_backends(Context context, const FileSpec* file, const Components* components,
                                                Runtime* runtime, Clock::duration patience) {
  std::map<std::string, BackendAnswer> used;
  for (const auto& ns : file->namespaces) {
    for (const auto& backend : summarize(*file, ns, *components, false).backends) {
      if (backend.binding == BackendSummary::Binding::embedded) continue;
      BackendAnswer& answer = used[backend.name];
      answer.name = backend.name;
      answer.type = backend.type;
      answer.namespaces.push_back(ns.name);
    }
  }
  const auto connections = file->connections();
  std::vector<Task<BackendAnswer>> asks;
  for (auto& [name, answer] : used) {
    const auto spec = std::ranges::find(connections, name, &BackendSpec::name);
    const BackendType* type = components->backend(answer.type);
    if (type == nullptr || !type->connect) {
      asks.push_back(refused(std::move(answer), {Code::unimplemented,
                                                 "BACKEND_NOT_AVAILABLE",
                                                 "this version of Prism has no connector for " + answer.type,
                                                 "run with `prism dev`, which binds it to its embedded twin",
                                                 Retry::never,
                                                 {},
                                                 {}}));
    } else if (spec == connections.end()) {
      asks.push_back(refused(std::move(answer), {Code::failed_precondition,
                                                 "BACKEND_NOT_CONFIGURED",
                                                 "backend \"" + name + "\" is used and not configured",
                                                 "give its connection under `backends:`",
                                                 Retry::never,
                                                 {},
                                                 {}}));
    } else {
      asks.push_back(ask_one(context, std::move(answer), type, &*spec, runtime, patience));
    }
  }
  co_return co_await when_all(std::move(asks));
}

}  // namespace prism
