# cmake -DINPUT=text -DOUTPUT=x.cc -DNAME=function -P embed.cmake: the text as C++, `std::string_view prism::NAME()`.
file(READ ${INPUT} text)
file(WRITE ${OUTPUT} "#include <string_view>\nnamespace prism {\nstd::string_view ${NAME}();\nstd::string_view ${NAME}() {\n  return R\"embedded(${text})embedded\";\n}\n}\n")
